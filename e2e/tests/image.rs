//! The container image as `hack/image` builds it, and the Dockerfile that has to make the same one. No server is needed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use e2e::{Component, binary};
use serde_json::Value;
use sha2::{Digest, Sha256};

const NAME: &str = "registry.example/vdbi:test";
const LABEL: &str = "org.opencontainers.image.";

static IMAGE: LazyLock<Image> = LazyLock::new(|| Image::read(&build("image.tar")));

struct Image {
    archive: BTreeMap<String, Entry>,
    /// The manifest's entry in the index.
    described: Value,
    manifest: Value,
    config: Value,
    /// Uncompressed.
    layer: Vec<u8>,
    files: BTreeMap<String, Entry>,
}

/// What a tar says of a file, a directory or a link.
struct Entry {
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    time: u32,
    target: String,
    content: Vec<u8>,
}

#[test]
fn every_blob_is_what_its_descriptor_says_and_there_is_no_other() {
    let image = &*IMAGE;
    assert_eq!(json(&image.archive["oci-layout"].content)["imageLayoutVersion"], "1.0.0");
    let mut blobs = BTreeSet::new();
    for descriptor in [&image.described, &image.manifest["config"], &image.manifest["layers"][0]] {
        let digest = descriptor["digest"].as_str().unwrap();
        let path = format!("blobs/{}", digest.replace(':', "/"));
        let content = &image.archive[&path].content;
        assert_eq!(descriptor["size"], content.len(), "{path}");
        assert_eq!(digest, sha256(content), "{path}");
        blobs.insert(path);
    }
    let files = image.archive.iter().filter(|(_, entry)| entry.kind == b'0').map(|(path, _)| path.clone());
    let there: BTreeSet<String> = files.filter(|path| path.starts_with("blobs/")).collect();
    assert_eq!(there, blobs);
    assert_eq!(image.config["rootfs"]["diff_ids"], serde_json::json!([sha256(&image.layer)]));
}

#[test]
fn the_image_starts_the_program_as_an_ordinary_user_and_says_what_it_is() {
    let image = &*IMAGE;
    let config = &image.config["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/vdbi"]));
    assert_eq!(config["Env"], serde_json::json!(["PATH=/"]));
    assert_eq!(image.config["os"], "linux");
    assert_eq!(image.described["annotations"]["io.containerd.image.name"], NAME);
    let labels = &config["Labels"];
    assert_eq!(labels[format!("{LABEL}version")], env!("CARGO_PKG_VERSION"));
    assert_eq!(labels[format!("{LABEL}licenses")], "Apache-2.0");
    assert_eq!(labels[format!("{LABEL}created")], image.config["created"]);
    let page = labels[format!("{LABEL}documentation")].as_str().unwrap();
    assert!(root().join(page).is_file(), "there is no {page}");
    assert_eq!(image.manifest["annotations"], *labels);
}

#[test]
fn a_file_of_the_image_is_root_s_and_nobody_else_can_change_it_or_become_root_by_it() {
    for (path, entry) in &IMAGE.files {
        assert_eq!(entry.owner, (0, 0), "{path}");
        assert_eq!(entry.time, 0, "{path}");
        assert!(matches!(entry.kind, b'0' | b'2' | b'5'), "{path}");
        if entry.kind != b'2' {
            assert_eq!(entry.mode & 0o7022, 0, "{path} has mode {:o}", entry.mode);
            assert_eq!(entry.mode & 0o444, 0o444, "{path} has mode {:o}", entry.mode);
        }
    }
}

#[test]
fn the_image_has_the_program_by_every_component_s_name_its_user_authorities_and_licences() {
    let files = &IMAGE.files;
    let program = fs::read(binary("vdbi", "vdbi").unwrap()).unwrap();
    assert!(files["vdbi"].content == program && files["vdbi"].mode == 0o755);
    for component in Component::ALL {
        let (_, name) = component.program();
        assert_eq!((files[name].kind, files[name].target.as_str()), (b'2', "vdbi"), "{name}");
    }
    assert!(text(&files["etc/passwd"]).contains("\nnonroot:x:65532:65532:"));
    assert!(text(&files["etc/ssl/certs/ca-certificates.crt"]).matches("BEGIN CERTIFICATE").count() > 50);
    assert_eq!(files["licenses/LICENSE"].content, fs::read(root().join("LICENSE")).unwrap());
    // An authority that was added to the machine which builds is none of the image's.
    let own = fs::read_dir("/usr/local/share/ca-certificates").into_iter().flatten();
    for path in own.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        let added = fs::read_to_string(&path).unwrap();
        assert!(!text(&files["etc/ssl/certs/ca-certificates.crt"]).contains(added.trim()), "{path:?}");
    }
}

#[test]
fn the_bill_of_materials_lists_every_crate_of_the_program_and_no_other() {
    let document = json(&IMAGE.files["sbom.cdx.json"].content);
    assert_eq!((&document["bomFormat"], &document["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let listed = document["components"].as_array().unwrap();
    let crates: BTreeMap<String, &Value> = listed
        .iter()
        .chain([&document["metadata"]["component"]])
        .filter_map(|component| Some((component["purl"].as_str()?.to_owned(), component)))
        .collect();

    let target = format!("--target={}-unknown-linux-gnu", std::env::consts::ARCH);
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package=vdbi", "--edges=normal,no-proc-macro", "--no-dedupe"])
        .args(["--prefix=none", "--format={p}", &target])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let expected: BTreeSet<String> = tree.lines().map(purl).collect();
    assert!(expected.len() > 100, "{tree}");
    assert_eq!(crates.keys().cloned().collect::<BTreeSet<_>>(), expected);

    // Cargo's metadata knows them all, and has more: its features are those of the whole workspace.
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()
        .unwrap();
    let reachable = reachable(&metadata);
    for (purl, component) in &crates {
        let package = metadata.packages.iter().find(|package| {
            component["name"] == package.name.as_str() && component["version"] == package.version.to_string()
        });
        let package = package.unwrap_or_else(|| panic!("cargo does not know {purl}"));
        assert!(reachable.contains(&package.id), "vdbi does not use {purl}");
        let licence = package.license.as_deref().unwrap().replace(" / ", "/").replace('/', " OR ");
        assert_eq!(component["licenses"][0]["expression"], licence, "{purl}");
        let others = package.source.is_some();
        assert_eq!(component["hashes"].is_array(), others || package.name == "vdbi", "{purl}");
        assert!(!others || licences().contains(&format!("{} {}", package.name, package.version)), "{purl}");
    }
    let program = &IMAGE.files["vdbi"].content;
    let digest =
        format!("sha256:{}", document["metadata"]["component"]["hashes"][0]["content"].as_str().unwrap());
    assert_eq!(digest, sha256(program));
}

#[test]
fn the_bill_of_materials_lies_beside_the_archive_too() {
    let image = &*IMAGE;
    let beside = fs::read(temporary("image.cdx.json")).unwrap();
    assert_eq!(beside, image.files["sbom.cdx.json"].content);
}

#[test]
fn building_twice_gives_the_same_archive() {
    let first = &*IMAGE;
    let again = Image::read(&build("again.tar"));
    assert_eq!(again.described["digest"], first.described["digest"]);
    let [first, again] = ["image.tar", "again.tar"].map(|name| fs::read(temporary(name)).unwrap());
    assert!(first == again, "the archives differ in more than the image");
}

#[test]
fn the_dockerfile_makes_an_image_of_the_same_configuration() {
    let dockerfile = Dockerfile::read(&root().join("Dockerfile"));
    let config = &IMAGE.config["config"];
    assert_eq!(dockerfile.one("USER"), config["User"]);
    assert_eq!(dockerfile.one("WORKDIR"), config["WorkingDir"]);
    assert_eq!(json(dockerfile.one("ENTRYPOINT").as_bytes()), config["Entrypoint"]);
    assert_eq!(serde_json::json!([dockerfile.one("ENV")]), config["Env"]);
    let mut labels: BTreeMap<String, String> = serde_json::from_value(config["Labels"].clone()).unwrap();
    // These two are told to it, as it has no repository to ask.
    for told in ["revision", "created"] {
        labels.insert(format!("{LABEL}{told}"), format!("${{{}}}", told.to_uppercase()));
    }
    assert_eq!(dockerfile.labels(), labels);
    for argument in ["REVISION", "CREATED"] {
        assert!(dockerfile.arguments.contains_key(argument), "ARG {argument} is missing");
    }
}

#[test]
fn the_dockerfile_takes_its_files_from_hack_image() {
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let (builder, last) = dockerfile.split_once("FROM scratch\n").unwrap();
    assert!(builder.contains("hack/image --tree /image\n"), "{builder}");
    assert_eq!(last.matches("COPY").count(), 1);
    assert!(last.contains("COPY --from=builder /image/ /\n"), "{last}");

    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    let output = hack_image(&["--binary", vdbi().to_str().unwrap(), "--tree", tree.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    for (path, entry) in &IMAGE.files {
        let found = fs::symlink_metadata(tree.join(path)).unwrap();
        assert_eq!(found.is_symlink(), entry.kind == b'2', "{path}");
        assert!(!found.is_file() || fs::read(tree.join(path)).unwrap() == entry.content, "{path}");
    }
}

#[test]
fn the_image_of_another_program_says_what_that_is_and_lists_its_crates() {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let (name, program) = ("custom-policy", binary("custom-policy", "custom-policy").unwrap());
    let manifest = root().join("examples/custom-policy/Cargo.toml");
    let arguments = ["--binary", program.to_str().unwrap(), "--manifest", manifest.to_str().unwrap()];
    let output = hack_image(
        &[&arguments[..], &["--output", archive.to_str().unwrap(), "--compression", "1"]].concat(),
    );
    assert!(output.status.success(), "{output:?}");
    let image = Image::read(&archive);
    assert_eq!(image.config["config"]["Entrypoint"], serde_json::json!(["/custom-policy"]));
    assert_eq!(image.config["config"]["Labels"][format!("{LABEL}title")], name);
    assert!(image.files[name].content == fs::read(&program).unwrap());
    assert!(!image.files.keys().any(|path| path.starts_with("vdbi")), "none of vdbi's names");
    let document = json(&image.files["sbom.cdx.json"].content);
    assert_eq!(document["metadata"]["component"]["name"], name);
    let crates: BTreeSet<&str> = document["components"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|crate_| crate_["name"].as_str())
        .collect();
    assert!(crates.contains("vdbi-webhook") && !crates.contains("vdbi-nri"), "{crates:?}");
}

#[test]
fn docker_gets_every_crate_of_the_workspace_and_neither_builds_nor_history() {
    let ignored = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let (first, sent) = ignored.split_once('\n').unwrap();
    assert_eq!(first, "*", "what is not named is not sent");
    let sent: BTreeSet<&str> = sent.lines().map(|line| line.strip_prefix('!').unwrap()).collect();
    for needed in ["Cargo.toml", "Cargo.lock", "LICENSE", "hack/image"] {
        assert!(sent.contains(needed), "{needed}");
    }
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    for package in &metadata.packages {
        let directory = package.manifest_path.strip_prefix(&metadata.workspace_root).unwrap();
        let top = directory.components().next().unwrap();
        assert!(sent.contains(top.as_str()), "{top}");
    }
    assert!(!sent.contains("target") && !sent.contains(".git"));
}

#[test]
fn what_cannot_be_packed_is_refused_by_name() {
    let other = if cfg!(target_arch = "x86_64") { "linux/arm64" } else { "linux/amd64" };
    let program = vdbi();
    let program = program.to_str().unwrap();
    let workspace = root().join("Cargo.toml");
    let workspace = workspace.to_str().unwrap();
    for (arguments, words) in [
        (&["--binary", "/etc/passwd"][..], "/etc/passwd (--binary) is no program"),
        (&["--binary", "/no/such/vdbi"], "/no/such/vdbi (--binary) is no file"),
        (&["--binary", program, "--platform", other], "is no program for linux/"),
        (&["--platform", other], "this machine builds no program for"),
        (&["--platform", "windows/amd64"], "choose linux/amd64 or linux/arm64 with --platform"),
        (&["--binary", program, "--tree", "/"], "/ (--tree) is there already"),
        (
            &["--binary", program, "--manifest", workspace],
            "Cargo.toml (--manifest) is the manifest of no package",
        ),
    ] {
        let output = hack_image(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

/// The last stage's instructions.
struct Dockerfile {
    instructions: Vec<(String, String)>,
    arguments: BTreeMap<String, String>,
}

impl Dockerfile {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap().replace("\\\n", "");
        let (_, last) = text.rsplit_once("\nFROM scratch\n").unwrap();
        let split =
            |line: &str| line.split_once(' ').map(|(name, rest)| (name.to_owned(), rest.trim().to_owned()));
        let instructions: Vec<_> = last.lines().filter_map(split).collect();
        let arguments = instructions.iter().filter(|(name, _)| name == "ARG");
        let arguments = arguments.filter_map(|(_, argument)| argument.split_once('='));
        let arguments = arguments.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { instructions, arguments }
    }

    fn one(&self, name: &str) -> &str {
        let mut found = self.instructions.iter().filter(|(instruction, _)| instruction == name);
        let (_, value) = found.next().unwrap_or_else(|| panic!("{name} is missing"));
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }

    /// With the default of `VERSION` in its place.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for label in self.one("LABEL").split(LABEL).skip(1) {
            let (name, value) = label.split_once('=').unwrap();
            let value = value.trim().trim_matches('"').replace("${VERSION}", &self.arguments["VERSION"]);
            labels.insert(format!("{LABEL}{name}"), value);
        }
        labels
    }
}

impl Image {
    fn read(path: &Path) -> Self {
        let archive = untar(&fs::read(path).unwrap());
        let blob = |descriptor: &Value| {
            let path = format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
            archive[&path].content.clone()
        };
        let index = json(&archive["index.json"].content);
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
        let described = index["manifests"][0].clone();
        let manifest = json(&blob(&described));
        let config = json(&blob(&manifest["config"]));
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        let layer = gunzip(&blob(&manifest["layers"][0]));
        let files = untar(&layer);
        Self { archive, described, manifest, config, layer, files }
    }
}

fn vdbi() -> PathBuf {
    binary("vdbi", "vdbi").unwrap()
}

/// Packs the debug build; what this compiles is not what a release would ship, and is there anyway.
fn build(name: &str) -> PathBuf {
    let (program, output) = (vdbi(), temporary(name));
    let [binary, archive] = [&program, &output].map(|path| path.to_str().unwrap());
    let done = hack_image(&["--binary", binary, "--output", archive, "--name", NAME, "--compression", "1"]);
    assert!(done.status.success(), "{done:?}");
    assert!(String::from_utf8_lossy(&done.stdout).contains(NAME), "{done:?}");
    output
}

fn hack_image(arguments: &[&str]) -> Output {
    Command::new(root().join("hack/image")).args(arguments).output().unwrap()
}

fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

fn text(entry: &Entry) -> &str {
    std::str::from_utf8(&entry.content).unwrap()
}

fn licences() -> &'static str {
    text(&IMAGE.files["licenses/third-party.txt"])
}

fn sha256(content: &[u8]) -> String {
    let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digest}")
}

/// Of a line of `cargo tree`: `name v1.2.3 (where)`.
fn purl(line: &str) -> String {
    let mut words = line.split_whitespace();
    let (name, version) = (words.next().unwrap(), words.next().unwrap());
    format!("pkg:cargo/{name}@{}", version.trim_start_matches('v'))
}

/// What `vdbi` depends on to run.
fn reachable(metadata: &Metadata) -> BTreeSet<PackageId> {
    let nodes = &metadata.resolve.as_ref().unwrap().nodes;
    let root = metadata.packages.iter().find(|package| package.name == "vdbi").unwrap();
    let mut found = BTreeSet::new();
    let mut ahead = vec![root.id.clone()];
    while let Some(id) = ahead.pop() {
        let node = nodes.iter().find(|node| node.id == id).unwrap();
        let normal = node
            .deps
            .iter()
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        if found.insert(id) {
            ahead.extend(normal.map(|dependency| dependency.pkg.clone()));
        }
    }
    found
}

fn gunzip(compressed: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), compressed).unwrap();
    let output =
        Command::new("gzip").args(["--decompress", "--stdout"]).stdin(file.reopen().unwrap()).output();
    let output = output.expect("gzip can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn untar(archive: &[u8]) -> BTreeMap<String, Entry> {
    const BLOCK: usize = 512;
    let mut entries = BTreeMap::new();
    let mut rest = archive;
    while let Some((header, after)) = rest.split_at_checked(BLOCK).filter(|(header, _)| header[0] != 0) {
        let field = |from: usize, length: usize| {
            let bytes = &header[from..from + length];
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(length);
            std::str::from_utf8(&bytes[..end]).unwrap().trim().to_owned()
        };
        let number = |from: usize, length: usize| u32::from_str_radix(&field(from, length), 8).unwrap();
        assert_eq!(field(345, 155), "", "a name is longer than this reads");
        let size = usize::try_from(number(124, 12)).unwrap();
        let entry = Entry {
            kind: header[156],
            mode: number(100, 8),
            owner: (number(108, 8), number(116, 8)),
            time: number(136, 12),
            target: field(157, 100),
            content: after[..size].to_vec(),
        };
        let path = field(0, 100).trim_end_matches('/').to_owned();
        assert!(entries.insert(path.clone(), entry).is_none(), "{path} is there twice");
        rest = &after[size.next_multiple_of(BLOCK)..];
    }
    entries
}
