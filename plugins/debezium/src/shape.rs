//! What a Connect schema says of a row's fields.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// One field of a row: how it is written, and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Field {
    /// The literal type: `int32`, `string`, `bytes`, `struct`.
    pub ty: String,
    /// The meaning: `io.debezium.time.MicroTimestamp`; None: the literal type says it all.
    pub name: Option<String>,
    /// The scale of a decimal.
    pub scale: Option<i32>,
}

/// The fields of a row by name, as the Connect schema of a record says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    fields: HashMap<String, Field>,
}

impl Shape {
    /// Reads the schema of an envelope: the fields of its `after`, else of its `before`. None: the schema is not one of an envelope.
    pub fn of_envelope(schema: &str) -> Option<Self> {
        let schema: WireSchema<'_> = serde_json::from_str(schema).ok()?;
        let image = |name: &str| {
            let image = schema.fields.iter().find(|field| field.field.as_deref() == Some(name))?;
            Some(image.fields.iter().filter_map(|field| Some((field.field.as_deref()?.to_owned(), field.read()))).collect::<HashMap<_, _>>())
        };
        image("after").or_else(|| image("before")).filter(|fields| !fields.is_empty()).map(|fields| Self { fields })
    }
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }
    /// A shape of these fields; for tests.
    pub fn of(fields: impl IntoIterator<Item = (String, Field)>) -> Self {
        Self { fields: fields.into_iter().collect() }
    }
}

#[derive(Deserialize)]
struct WireSchema<'a> {
    #[serde(borrow, rename = "type")]
    ty: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    field: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    parameters: Option<Parameters<'a>>,
    #[serde(borrow, default)]
    fields: Vec<WireSchema<'a>>,
}

#[derive(Deserialize)]
struct Parameters<'a> {
    #[serde(borrow)]
    scale: Option<&'a RawValue>,
}

impl WireSchema<'_> {
    fn read(&self) -> Field {
        let scale = self.parameters.as_ref().and_then(|parameters| parameters.scale).and_then(|raw| raw.get().trim_matches('"').parse().ok());
        Field { ty: self.ty.as_deref().unwrap_or_default().to_owned(), name: self.name.as_deref().map(str::to_owned), scale }
    }
}
