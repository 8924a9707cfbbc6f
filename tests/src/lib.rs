//! Tests on real servers: pipeline, validation, api, live page, faults, architecture
