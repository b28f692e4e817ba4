//! The form of per-stage numbers in a spec: `"14-14-14"`.

use std::fmt;
use std::ops::Deref;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A list of positive numbers, written `"14-14-14"` or `[14, 14, 14]`: layers or growth rates, one a stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Dashed(pub Vec<u32>);

impl Deref for Dashed {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        &self.0
    }
}

impl fmt::Display for Dashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.pad(&text.join("-"))
    }
}

impl Serialize for Dashed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dashed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DashedVisitor;

        impl<'de> Visitor<'de> for DashedVisitor {
            type Value = Dashed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("whole numbers like \"14-14-14\" or [14, 14, 14]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Dashed, E> {
                if text.is_empty() {
                    return Ok(Dashed::default());
                }
                let numbers: Result<Vec<u32>, _> = text.split('-').map(|part| part.trim().parse()).collect();
                numbers.map(Dashed).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dashed, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = seq.next_element()? {
                    numbers.push(number);
                }
                Ok(Dashed(numbers))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Dashed, E> {
                match u32::try_from(number) {
                    Ok(n) => Ok(Dashed(vec![n])),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Dashed, E> {
                match u32::try_from(number) {
                    Ok(n) => Ok(Dashed(vec![n])),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
        }

        deserializer.deserialize_any(DashedVisitor)
    }
}
