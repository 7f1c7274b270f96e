//! The protocol's messages, generated from `proto/`.

#![allow(missing_docs, unreachable_pub, clippy::enum_variant_names, reason = "generated")]

pub(crate) mod nri {
    include!(concat!(env!("OUT_DIR"), "/nri.pkg.api.v1alpha1.rs"));
}

pub(crate) mod ttrpc {
    include!(concat!(env!("OUT_DIR"), "/ttrpc.rs"));
}
