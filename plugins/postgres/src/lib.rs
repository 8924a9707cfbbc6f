//! Plugins that read and write PostgreSQL: the applier, the comparer and its reader
