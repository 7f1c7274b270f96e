use rcgen::{CertificateParams, KeyPair};

use super::*;

fn identity(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn material(certificate: &str, key: &str) -> Material {
    Material { certificate: certificate.as_bytes().to_vec(), key: Secret::new(key) }
}

fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[test]
fn material_that_does_not_fit_is_refused_with_what_is_wrong() {
    install_provider();
    let ((certificate, key), (_, another)) = (identity("a"), identity("b"));
    let registry = Registry::disabled();
    let refused = |material: &Material| Tls::new(material, None, &registry).unwrap_err().to_string();
    assert!(refused(&material("", &key)).contains("no PEM certificate"));
    assert!(refused(&material(&certificate, "")).starts_with("the key"));
    assert!(refused(&material(&certificate, &another)).starts_with("the key"));
    let nobody = ClientAuthorities { certificates: Vec::new(), allowed_names: Vec::new() };
    let error = Tls::new(&material(&certificate, &key), Some(&nobody), &registry).unwrap_err();
    assert!(error.to_string().contains("webhook.clientCaFile"), "{error}");
}

#[test]
fn what_cannot_be_used_changes_nothing() {
    install_provider();
    let (certificate, key) = identity("a");
    let tls = Tls::new(&material(&certificate, &key), None, &Registry::disabled()).unwrap();
    let before = tls.config().get_inner();
    tls.replace(&material(&certificate, &identity("b").1), None).unwrap_err();
    assert!(Arc::ptr_eq(&before, &tls.config().get_inner()));
    tls.replace(&material(&certificate, &key), None).unwrap();
    assert!(!Arc::ptr_eq(&before, &tls.config().get_inner()));
}

#[tokio::test]
async fn a_missing_file_is_named_with_its_key() {
    let files = Source::Files { certificate: "/no/such.crt".into(), key: "/no/such.key".into() };
    let error = Keeper::start(files, None, &Registry::disabled()).await.unwrap_err().to_string();
    assert!(error.contains("/no/such.crt (certFile)"), "{error}");
}
