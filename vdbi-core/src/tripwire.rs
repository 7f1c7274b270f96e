//! A mount that keeps a container from running while its placeholders are in place.
//!
//! The webhook mounts an empty directory where every container has a file; no runtime can do that, so that the container fails to
//! start with `not a directory`, and the kubelet tries again. The node plugin takes the mount away in the very answer in which it
//! replaces the placeholders. Whatever happens to the plugin, a container that it has not seen does not run.
//!
//! runc allows a mount on `/proc/uptime`, so that the plugin can put a file there where the runtime takes no removals; elsewhere
//! below `/proc` it allows none.

/// The name of the volume.
pub const VOLUME: &str = "vdbi-tripwire";

/// Where it is mounted.
pub const PATH: &str = "/proc/uptime";
