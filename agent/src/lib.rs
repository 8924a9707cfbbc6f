//! The Plumbline agent: the host of all plugins, its API, its page and its command line
