//! The two protocols under NRI: several connections over one socket ([`mux`]), and calls over each of them ([`ttrpc`]).

pub(crate) mod link;
pub(crate) mod mux;
pub(crate) mod ttrpc;
