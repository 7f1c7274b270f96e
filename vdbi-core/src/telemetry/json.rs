//! One JSON object per event.

use std::{error::Error, fmt, io::Write};

use jiff::Timestamp;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context, registry::LookupSpan};

/// Keys that are not for fields; a field of that name becomes `fields.NAME`, as with the Go product's logger.
const RESERVED: [&str; 3] = ["level", "message", "time"];

/// What the bridge from the `log` crate adds to each record.
const BRIDGE: &str = "log.";

/// Writes events as lines of JSON.
#[derive(Debug)]
pub(super) struct Json<W> {
    writer: W,
}

impl<W> Json<W> {
    pub(super) fn new(writer: W) -> Self {
        Self { writer }
    }
}

impl<S, W> Layer<S> for Json<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(outer) = span.extensions().get::<Fields>() {
                outer.others.iter().for_each(|(name, value)| fields.set(name, value.clone()));
            }
        }
        event.record(&mut fields);
        let level = event.metadata().level();
        if let Ok(mut line) = line(*level, &fields, Timestamp::now()) {
            line.push(b'\n');
            // One write, so that lines of several threads do not mix. Where logs cannot be written nothing can be said about it.
            let _ = self.writer.make_writer_for(event.metadata()).write_all(&line);
        }
    }
}

fn line(level: Level, fields: &Fields, now: Timestamp) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut line);
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("time", &format_args!("{now:.6}"))?;
    map.serialize_entry("level", word(level))?;
    map.serialize_entry("message", &fields.message)?;
    for (name, value) in &fields.others {
        if RESERVED.contains(name) {
            map.serialize_entry(&format_args!("fields.{name}").to_string(), value)?;
        } else {
            map.serialize_entry(name, value)?;
        }
    }
    map.end()?;
    Ok(line)
}

/// The words of the Go product's logger.
fn word(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warning",
        Level::ERROR => "error",
    }
}

/// The fields of a span or an event, each name once.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn set(&mut self, name: &'static str, value: Value) {
        match self.others.iter_mut().find(|(earlier, _)| *earlier == name) {
            Some((_, earlier)) => *earlier = value,
            None => self.others.push((name, value)),
        }
    }

    fn record(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if name == "message" {
            self.message = match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
        } else if !name.starts_with(BRIDGE) {
            self.set(name.strip_prefix("r#").unwrap_or(name), value);
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, value.into());
    }

    /// With its causes, which a library's error leaves to its reader.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        self.record(field, text.into());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use serde_json::json;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// A writer that keeps what is written.
    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Captured {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What `work` logs, each line without its time.
    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let captured = Captured::default();
        let subscriber = tracing_subscriber::registry().with(Json::new(captured.clone()));
        tracing::subscriber::with_default(subscriber, work);
        let parse = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let time = line.as_object_mut().unwrap().remove("time").unwrap();
            assert!(time.as_str().unwrap().ends_with('Z'));
            time.as_str().unwrap().parse::<Timestamp>().unwrap();
            line
        };
        captured.text().lines().map(parse).collect()
    }

    #[test]
    fn an_event_is_one_line_with_its_fields_beside_the_message() {
        let lines = logged(|| {
            tracing::info!(pod = "team-a/web", attempt = 2, ratio = 0.5, dry_run = true, took = ?std::time::Duration::from_secs(1),
                "renewed {}\nin two lines", "x");
            tracing::debug!("plain");
        });
        assert_eq!(
            lines,
            [
                json!({ "level": "info", "message": "renewed x\nin two lines", "pod": "team-a/web", "attempt": 2,
                        "ratio": 0.5, "dry_run": true, "took": "1s" }),
                json!({ "level": "debug", "message": "plain" }),
            ]
        );
    }

    #[test]
    fn time_and_level_come_first() {
        let now: Timestamp = "2026-11-24T02:42:00Z".parse().unwrap();
        let mut fields = Fields { message: "started".to_owned(), others: Vec::new() };
        fields.set("component", "renewer".into());
        assert_eq!(
            String::from_utf8(line(Level::INFO, &fields, now).unwrap()).unwrap(),
            r#"{"time":"2026-11-24T02:42:00.000000Z","level":"info","message":"started","component":"renewer"}"#
        );
    }

    #[test]
    fn levels_have_the_words_of_the_go_product() {
        let lines = logged(|| {
            tracing::warn!("a");
            tracing::error!("b");
        });
        assert_eq!(lines[0]["level"], "warning");
        assert_eq!(lines[1]["level"], "error");
    }

    #[test]
    fn fields_of_spans_are_inherited_and_the_innermost_counts() {
        let lines = logged(|| {
            let outer =
                tracing::info_span!("admission", uid = "1", pod = tracing::field::Empty, database = "outer");
            outer.record("pod", "team-a/web");
            let _outer = outer.entered();
            let _inner = tracing::info_span!("issue", database = "app").entered();
            tracing::info!(uid = "2", "issued");
        });
        assert_eq!(
            lines,
            [
                json!({ "level": "info", "message": "issued", "uid": "2", "pod": "team-a/web", "database": "app" })
            ]
        );
    }

    #[test]
    fn a_field_cannot_take_the_place_of_the_level() {
        let lines = logged(|| tracing::info!(level = "error", time = "never", r#type = "x", "honest"));
        assert_eq!(
            lines,
            [
                json!({ "level": "info", "message": "honest", "fields.level": "error", "fields.time": "never", "type": "x" })
            ]
        );
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the token")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("no such file"));
        let lines = logged(|| tracing::error!(error = &error as &dyn Error, "failed"));
        assert_eq!(lines[0]["error"], "cannot read the token: no such file");
    }
}
