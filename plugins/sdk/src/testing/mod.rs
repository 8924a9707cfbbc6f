//! Small real plugins for tests, and the conformance suite that every source and sink passes.
