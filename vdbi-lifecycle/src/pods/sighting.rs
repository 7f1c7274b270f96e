//! A pod as it is listed and watched.

use std::{borrow::Cow, fmt};

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use vdbi_core::pod::UUID_ANNOTATION;

/// The metadata of a pod as far as entries are concerned: its names, the entries that it lists, and when it goes. The rest,
/// most of it about who wrote which field, is many times as long and is skipped while an answer is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sighting {
    metadata: ObjectMeta,
}

impl From<ObjectMeta> for Sighting {
    fn from(metadata: ObjectMeta) -> Self {
        Self { metadata }
    }
}

/// A pod, for which the API server is asked for metadata alone.
impl Resource for Sighting {
    type DynamicType = ();
    type Scope = <Pod as Resource>::Scope;

    fn metadata_api() -> bool {
        true
    }

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<'de> Deserialize<'de> for Sighting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            name: Option<String>,
            namespace: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
            deletion_timestamp: Option<Time>,
            deletion_grace_period_seconds: Option<i64>,
            finalizers: Option<Vec<String>>,
            #[serde(default)]
            annotations: Option<Listed>,
        }
        let Object { metadata } = Object::deserialize(deserializer)?;
        let annotations =
            metadata.annotations.and_then(|Listed(ids)| Some([(UUID_ANNOTATION.to_owned(), ids?)].into()));
        let metadata = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            deletion_timestamp: metadata.deletion_timestamp,
            deletion_grace_period_seconds: metadata.deletion_grace_period_seconds,
            finalizers: metadata.finalizers,
            annotations,
            ..ObjectMeta::default()
        };
        Ok(Self { metadata })
    }
}

/// Of all annotations, the one that lists entries.
struct Listed(Option<String>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Annotations;

        impl<'de> Visitor<'de> for Annotations {
            type Value = Listed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut annotations: A) -> Result<Listed, A::Error> {
                let mut listed = None;
                while let Some(key) = annotations.next_key::<Cow<'_, str>>()? {
                    if key == UUID_ANNOTATION {
                        listed = Some(annotations.next_value()?);
                    } else {
                        annotations.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Listed(listed))
            }
        }

        deserializer.deserialize_map(Annotations)
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_listed_entries_and_the_deletion_are_kept_and_nothing_else() {
        let pod: Sighting = serde_json::from_value(json!({
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadata",
            "metadata": {
                "name": "web-0",
                "namespace": "shop",
                "uid": "u",
                "resourceVersion": "7",
                "deletionTimestamp": "2026-11-24T01:02:03Z",
                "deletionGracePeriodSeconds": 30,
                "finalizers": ["batch.kubernetes.io/job-tracking"],
                "annotations": { "other": "x", UUID_ANNOTATION: "a,b", "another": "y" },
                "labels": { "app": "web" },
                "managedFields": [{ "manager": "kubectl", "fieldsV1": { "f:metadata": { "f:labels": {} } } }],
            },
        }))
        .unwrap();
        assert_eq!((pod.name_any(), pod.namespace()), ("web-0".into(), Some("shop".into())));
        assert_eq!((pod.uid(), pod.resource_version()), (Some("u".into()), Some("7".into())));
        assert!(pod.metadata.deletion_timestamp.is_some());
        assert_eq!((pod.metadata.deletion_grace_period_seconds, pod.finalizers().len()), (Some(30), 1));
        assert_eq!(
            pod.annotations().iter().collect::<Vec<_>>(),
            [(&UUID_ANNOTATION.to_owned(), &"a,b".to_owned())]
        );
        assert_eq!((pod.labels().len(), pod.managed_fields().len()), (0, 0));
    }

    #[test]
    fn a_pod_without_annotations_lists_none() {
        for annotations in [json!(null), json!({}), json!({ "other": "x" })] {
            let pod = json!({ "metadata": { "name": "web", "annotations": annotations } });
            let pod: Sighting = serde_json::from_value(pod).unwrap();
            assert!(pod.annotations().is_empty());
        }
        let pod: Sighting = serde_json::from_value(json!({ "metadata": { "name": "web" } })).unwrap();
        assert!(pod.annotations().is_empty());
    }
}
