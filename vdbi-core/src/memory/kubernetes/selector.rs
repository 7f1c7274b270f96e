//! Label and field selectors.

use serde_json::Value;

use super::{resource::Resource, status::Refusal};

/// Which objects of a collection a list or watch is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    namespace: Option<String>,
    labels: Vec<LabelRequirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LabelRequirement {
    Exists(String),
    Absent(String),
    /// The label is there and has one of the values.
    In(String, Vec<String>),
    /// The label is not there, or has none of the values.
    NotIn(String, Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRequirement {
    pointer: String,
    value: String,
    equal: bool,
}

impl Selector {
    pub(super) fn parse(
        resource: &Resource,
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
    ) -> Result<Self, Refusal> {
        let labels = split_outside_parentheses(labels).map(LabelRequirement::parse);
        let fields = fields.split(',').map(str::trim).filter(|term| !term.is_empty());
        let fields = fields.map(|term| FieldRequirement::parse(resource, term));
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            labels: labels.collect::<Result<_, _>>()?,
            fields: fields.collect::<Result<_, _>>()?,
        })
    }

    /// Everything in a namespace.
    pub(super) fn in_namespace(namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::default() }
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        self.namespace.as_ref().is_none_or(|namespace| metadata["namespace"] == namespace.as_str())
            && self.labels.iter().all(|requirement| requirement.holds(&metadata["labels"]))
            && self.fields.iter().all(|requirement| requirement.holds(object))
    }
}

impl LabelRequirement {
    fn parse(term: &str) -> Result<Self, Refusal> {
        let refuse = || Refusal::bad_request(format!("unable to parse requirement: {term}"));
        let plain = |text: &str| match text.trim() {
            text if text.contains(|c: char| c.is_whitespace() || "()=!,".contains(c)) => Err(refuse()),
            text => Ok(text.to_owned()),
        };
        let key =
            |text: &str| plain(text).and_then(|key| if key.is_empty() { Err(refuse()) } else { Ok(key) });
        if let Some(values) = term.strip_suffix(')') {
            let (head, values) = values.split_once('(').ok_or_else(refuse)?;
            let values = values.split(',').map(plain).collect::<Result<_, _>>()?;
            return match head.trim().rsplit_once(char::is_whitespace) {
                Some((label, "in")) => Ok(Self::In(key(label)?, values)),
                Some((label, "notin")) => Ok(Self::NotIn(key(label)?, values)),
                _ => Err(refuse()),
            };
        }
        if let Some((label, value)) = term.split_once("!=") {
            return Ok(Self::NotIn(key(label)?, vec![plain(value)?]));
        }
        if let Some((label, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            return Ok(Self::In(key(label)?, vec![plain(value)?]));
        }
        match term.strip_prefix('!') {
            Some(label) => Ok(Self::Absent(key(label)?)),
            None => Ok(Self::Exists(key(term)?)),
        }
    }

    fn holds(&self, labels: &Value) -> bool {
        let label = |key: &String| labels.get(key).and_then(Value::as_str);
        match self {
            Self::Exists(key) => label(key).is_some(),
            Self::Absent(key) => label(key).is_none(),
            Self::In(key, values) => label(key).is_some_and(|value| values.iter().any(|v| v == value)),
            Self::NotIn(key, values) => label(key).is_none_or(|value| values.iter().all(|v| v != value)),
        }
    }
}

impl FieldRequirement {
    fn parse(resource: &Resource, term: &str) -> Result<Self, Refusal> {
        let (field, value, equal) = if let Some((field, value)) = term.split_once("!=") {
            (field, value, false)
        } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (field, value, true)
        } else {
            return Err(Refusal::bad_request(format!(
                "invalid selector: '{term}'; can't understand '{term}'"
            )));
        };
        let known = match field {
            "metadata.name" => true,
            "metadata.namespace" => resource.namespaced,
            "spec.nodeName" | "spec.serviceAccountName" | "spec.restartPolicy" | "spec.schedulerName" => {
                resource.kind == "Pod"
            }
            "status.phase" => resource.has_status,
            "involvedObject.kind"
            | "involvedObject.name"
            | "involvedObject.namespace"
            | "involvedObject.uid"
            | "reason"
            | "type" => resource.kind == "Event",
            _ => false,
        };
        if !known {
            return Err(Refusal::bad_request(format!("field label not supported: {field}")));
        }
        Ok(Self { pointer: format!("/{}", field.replace('.', "/")), value: value.to_owned(), equal })
    }

    fn holds(&self, object: &Value) -> bool {
        let value = object.pointer(&self.pointer).and_then(Value::as_str).unwrap_or_default();
        (value == self.value) == self.equal
    }
}

fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    let terms = text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    terms.map(str::trim).filter(|term| !term.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::resource::PODS, *};

    fn selects(labels: &str, fields: &str) -> bool {
        let pod = json!({
            "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web", "vdbi": "true"}},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running"},
        });
        Selector::parse(&PODS, Some("shop"), labels, fields).unwrap().matches(&pod)
    }

    #[test]
    fn labels_select_by_equality_existence_and_sets() {
        let matching = [
            "",
            "vdbi=true",
            "vdbi==true,app",
            "app!=db",
            "!other",
            "app in (db, web),vdbi",
            "other notin (a)",
        ];
        for labels in matching {
            assert!(selects(labels, ""), "{labels}");
        }
        for labels in ["vdbi=false", "other", "!app", "app!=web", "app in (db)", "app notin (web,db)"] {
            assert!(!selects(labels, ""), "{labels}");
        }
    }

    #[test]
    fn fields_select_by_equality() {
        for fields in ["metadata.name=web-0,spec.nodeName=n1", "status.phase!=Succeeded,status.phase!=Failed"]
        {
            assert!(selects("", fields), "{fields}");
        }
        for fields in ["spec.nodeName=", "status.phase!=Running", "metadata.namespace==other"] {
            assert!(!selects("", fields), "{fields}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        for (labels, fields) in [("a=b c in", ""), ("", "status.phase"), ("", "spec.unknown=1")] {
            assert_eq!(Selector::parse(&PODS, None, labels, fields).unwrap_err().code, 400);
        }
    }
}
