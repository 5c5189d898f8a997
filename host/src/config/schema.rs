//! The JSON Schema of the config file, for editors.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use super::file::File;

/// The JSON Schema (draft 7, which every editor knows) of `tidegate.toml`. `docs/tidegate.schema.json` is this.
#[must_use]
pub fn schema() -> Value {
    let settings = SchemaSettings::draft07().with_transform(RecursiveTransform(without_null));
    let mut schema = settings.into_generator().into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "tidegate.toml".into());
    schema.to_value()
}

/// An optional key may be absent; TOML has no null.
fn without_null(schema: &mut Schema) {
    let null = Value::from("null");
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| *kind != null);
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let is_null = |option: &Value| option.get("type") == Some(&null);
    if let Some(Value::Array(options)) = schema.get_mut("anyOf") {
        options.retain(|option| !is_null(option));
        if let [Value::Object(only)] = options.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                schema.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_schema_is_the_generated_one() {
        let shipped = include_str!("../../../docs/tidegate.schema.json");
        let generated = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        assert!(
            shipped == generated,
            "docs/tidegate.schema.json is stale: run `cargo run -p tidegate -- schema > docs/tidegate.schema.json`"
        );
    }
}
