//! Models of the link protocol.
