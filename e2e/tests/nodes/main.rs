//! A whole cluster: pods run in containers, and end in every way in which pods end. It takes root.

mod harness;
