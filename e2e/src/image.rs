use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::installed::Installed;

/// The image of the pods: busybox, which sleeps unless it is told otherwise. It is on every node, and nowhere else.
pub const IMAGE: &str = "vdbi.test/app:1";

const BLOCK: usize = 512;

/// Writes an archive that a container runtime imports; the image sets these environment variables besides `PATH`.
pub(crate) fn write(directory: &Path, env: &[(String, String)]) -> Result<PathBuf> {
    let busybox = fs::read(Installed::Busybox.path()?)?;
    let mut layer = Archive::default();
    layer.file("bin/busybox", &busybox)?;
    for applet in ["dd", "env", "nc", "sh", "sleep"] {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    let layer = layer.end();

    let mut image = Archive::default();
    let mut blob = |content: &[u8], media_type: &str| -> Result<Value> {
        let digest = sha256(content);
        image.file(&format!("blobs/sha256/{digest}"), content)?;
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len() }))
    };
    let layers = blob(&layer, "application/vnd.oci.image.layer.v1.tar")?;
    let env: Vec<String> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let env = [vec!["PATH=/bin".to_owned()], env].concat();
    let configuration = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Entrypoint": ["/bin/busybox", "sleep", "2147483647"], "Env": env },
        "rootfs": { "type": "layers", "diff_ids": [layers["digest"]] },
    });
    let configuration =
        blob(configuration.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?;
    let manifest = json!({ "schemaVersion": 2, "config": configuration, "layers": [layers] });
    let mut manifest = blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json")?;
    manifest["annotations"] = json!({ "io.containerd.image.name": IMAGE });
    image.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    image
        .file("index.json", json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string().as_bytes())?;
    let path = directory.join("app.tar");
    fs::write(&path, image.end())?;
    Ok(path)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tar archive.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.header(name, b'0', content.len(), "")?;
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.header(name, b'2', 0, target)
    }

    fn header(&mut self, name: &str, kind: u8, size: usize, target: &str) -> Result<()> {
        let mut header = [0; BLOCK];
        let mut put = |offset: usize, text: &[u8]| -> Result<()> {
            header.get_mut(offset..offset + text.len()).context("it is too long")?.copy_from_slice(text);
            Ok(())
        };
        put(0, name.as_bytes())?;
        put(100, b"0000755\0")?;
        put(108, b"0000000\0")?;
        put(116, b"0000000\0")?;
        put(124, format!("{size:011o}\0").as_bytes())?;
        put(136, b"00000000000\0")?;
        // The sum is formed with blanks in its own place.
        put(148, b"        ")?;
        put(156, &[kind])?;
        put(157, target.as_bytes())?;
        put(257, b"ustar\x0000")?;
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        Ok(())
    }

    /// Two empty blocks are the end.
    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}
