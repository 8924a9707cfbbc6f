//! Plugins that keep history, counters and position: SQLite
