//! Table tests over all pairs of types.
