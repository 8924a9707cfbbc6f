//! REST, the live page and `/metrics`.
