//! The main job over kube-apiserver, etcd, OpenBao and PostgreSQL: a pod's credential from its issue to its end.

mod failover;
mod life;
mod refusals;
mod scene;
