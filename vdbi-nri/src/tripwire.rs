//! Takes away the mount that keeps a container from running: see [`vdbi_core::tripwire`].

use std::path::Path;

use vdbi_core::tripwire::{PATH, VOLUME};

use crate::stub::{Adjustment, Container, Mount, Runtime};

/// From this version on containerd carries out an adjustment that only removes a mount: with NRI 0.8.
const REMOVES_MOUNTS: (u64, u64, u64) = (1, 7, 27);

/// Lets the container run, if the tripwire keeps it from that.
pub(crate) fn disarm(container: &Container, runtime: &Runtime, adjustment: &mut Adjustment) {
    if !container.mounts.iter().any(is_tripwire) {
        return;
    }
    let (major, minor, patch) = REMOVES_MOUNTS;
    if runtime.at_least(major, minor, patch) {
        adjustment.remove_mount(PATH);
    } else {
        // What the container would find there anyway.
        adjustment.set_mount(Mount {
            destination: PATH.to_owned(),
            kind: "bind".to_owned(),
            source: PATH.to_owned(),
            options: vec!["bind".to_owned(), "ro".to_owned()],
        });
    }
}

/// The kubelet names a volume's directory after the volume.
fn is_tripwire(mount: &Mount) -> bool {
    mount.destination == PATH && Path::new(&mount.source).file_name().is_some_and(|name| name == VOLUME)
}
