//! Lists, maps and numbers that are refused where they are too long or too large, with the place where
//! they are.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::ops::RangeInclusive;

/// A list of at most `MOST`.
pub(super) fn list<'de, D, T, const MOST: usize>(d: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MOST: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = seq.next_element()? {
                if list.len() == MOST {
                    let why = format!("the list has more than {MOST} entries: take some out");
                    return Err(A::Error::custom(why));
                }
                list.push(item);
            }
            Ok(list)
        }
    }
    d.deserialize_seq(List::<T, MOST>(PhantomData))
}

/// The same, there.
pub(super) fn some_list<'de, D, T, const MOST: usize>(d: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    list::<D, T, MOST>(d).map(Some)
}

/// A map of at most `MOST`, each key once.
pub(super) fn map<'de, D, K, V, const MOST: usize>(d: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + Display,
    V: Deserialize<'de>,
{
    struct Map<K, V, const MOST: usize>(PhantomData<(K, V)>);
    impl<'de, K, V, const MOST: usize> Visitor<'de> for Map<K, V, MOST>
    where
        K: Deserialize<'de> + Ord + Display,
        V: Deserialize<'de>,
    {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "an object of at most {MOST} fields")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<BTreeMap<K, V>, A::Error> {
            let mut map = BTreeMap::new();
            while let Some(key) = fields.next_key::<K>()? {
                if map.contains_key(&key) {
                    let why = format!("`{key}` is there twice: make one of them");
                    return Err(A::Error::custom(why));
                }
                if map.len() == MOST {
                    let why = format!("there are more than {MOST} fields: take some out");
                    return Err(A::Error::custom(why));
                }
                let value = fields.next_value()?;
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    d.deserialize_map(Map::<K, V, MOST>(PhantomData))
}

/// A whole number in a range, there.
pub(super) fn within<'de, D, T>(d: D, range: RangeInclusive<T>) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + PartialOrd + Display,
{
    let value = T::deserialize(d)?;
    if range.contains(&value) {
        return Ok(Some(value));
    }
    let (least, most) = (range.start(), range.end());
    let why = format!("{value} is not between {least} and {most}");
    Err(D::Error::custom(why))
}
