//! Plugins that read MySQL: discovery, the binlog source, the reader of a comparison
