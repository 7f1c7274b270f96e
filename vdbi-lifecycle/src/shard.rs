//! The ledger in parts, each of which has a leader of its own.

use thiserror::Error;
use vdbi_core::ledger::EntryId;

/// One of several parts of the ledger. Which part an entry is in depends on its id and the number of parts alone, in every
/// version of this library.
///
/// ```
/// # use vdbi_core::ledger::EntryId;
/// # use vdbi_lifecycle::shard::Shard;
/// let id = EntryId::random();
/// let leaders = Shard::all(8).filter(|shard| shard.covers(id));
/// assert_eq!(leaders.count(), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard {
    index: u16,
    count: u16,
}

/// There is no such part.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("there is no shard {index} of {count}")]
pub struct InvalidShard {
    index: u16,
    count: u16,
}

impl Shard {
    /// The only part: the whole ledger.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Part `index` of `count`, counted from 0.
    ///
    /// # Errors
    ///
    /// Where `index` is not below `count`.
    pub fn new(index: u16, count: u16) -> Result<Self, InvalidShard> {
        if index < count { Ok(Self { index, count }) } else { Err(InvalidShard { index, count }) }
    }

    /// All parts of a ledger that is divided into so many; none for 0.
    pub fn all(count: u16) -> impl Iterator<Item = Self> {
        (0..count).map(move |index| Self { index, count })
    }

    /// Which part this is, from 0.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// How many parts there are.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether an entry is in this part: exactly one of [`Shard::all`] says so.
    pub fn covers(&self, id: EntryId) -> bool {
        hash(id) % u64::from(self.count) == u64::from(self.index)
    }

    /// The name of this part's Lease: the prefix itself where there is only one part.
    pub fn lease_name(&self, prefix: &str) -> String {
        if self.count == 1 { prefix.to_owned() } else { format!("{prefix}-{}", self.index) }
    }

    /// This part's share of what all parts together may have, rounded up.
    pub(crate) fn share_of(self, limit: usize) -> usize {
        limit.div_ceil(self.count.into())
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::WHOLE
    }
}

/// Spreads ids evenly, those of version 1 too, which differ in a few digits. It must never change: two versions of a replica
/// would disagree about who leads what.
fn hash(id: EntryId) -> u64 {
    let id = id.as_u128();
    mix(mix((id >> 64) as u64) ^ id as u64)
}

/// The finalizer of SplitMix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these entries each part has.
    fn sizes(ids: impl Iterator<Item = EntryId>, count: u16) -> Vec<usize> {
        let mut sizes = vec![0; count.into()];
        for id in ids {
            let covering: Vec<_> = Shard::all(count).filter(|shard| shard.covers(id)).collect();
            let [shard] = covering[..] else { panic!("{id} is in {covering:?}") };
            sizes[usize::from(shard.index)] += 1;
        }
        sizes
    }

    fn is_even(sizes: &[usize], tolerated: f64) -> bool {
        let mean = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
        sizes.iter().all(|size| (*size as f64 / mean - 1.0).abs() <= tolerated)
    }

    /// As `uuid_generate_v1` counts on one machine: 100 ns a step.
    fn version_1(step: u64) -> EntryId {
        let time = 0x1f0_2bd0_8a6e_0804 + step;
        let (low, mid, high) = (time as u32, (time >> 32) as u16, (time >> 48) as u16 & 0xfff);
        format!("{low:08x}-{mid:04x}-1{high:03x}-9cd2-0242ac120002").parse().unwrap()
    }

    #[test]
    fn every_entry_is_in_one_part_and_the_parts_are_of_one_size() {
        for count in [1, 2, 3, 8, 64] {
            let sizes = sizes((0..100_000).map(|_| EntryId::random()), count);
            assert!(is_even(&sizes, 0.15), "{sizes:?}");
            assert!(count > 8 || is_even(&sizes, 0.04), "{sizes:?}");
        }
    }

    #[test]
    fn ids_of_version_1_spread_too_however_far_apart_they_were_made() {
        for (steps, count) in [(1, 8), (8, 8), (10_000_000, 8), (1, 3), (64, 64)] {
            let sizes = sizes((0..100_000).map(|index| version_1(index * steps)), count);
            assert!(is_even(&sizes, if count > 8 { 0.15 } else { 0.04 }), "{steps} {sizes:?}");
        }
    }

    #[test]
    fn the_part_of_an_id_is_the_same_in_every_version() {
        for (id, eight, three) in [
            ("00000000-0000-0000-0000-000000000000", 0, 0),
            ("00000000-0000-0000-0000-000000000001", 5, 1),
            ("00000000-0000-0001-0000-000000000000", 5, 1),
            ("8a6e0804-2bd0-11f0-9cd2-0242ac120002", 1, 1),
            ("8a6e0805-2bd0-11f0-9cd2-0242ac120002", 3, 0),
            ("0b6c3a5e-6f0e-4c1c-9d6b-2f8f7f1f0a11", 4, 2),
            ("f47ac10b-58cc-4372-a567-0e02b2c3d479", 2, 1),
            ("ffffffff-ffff-ffff-ffff-ffffffffffff", 3, 0),
        ] {
            let id: EntryId = id.parse().unwrap();
            let part = |count| Shard::all(count).find(|shard| shard.covers(id)).unwrap().index();
            assert_eq!((part(8), part(3)), (eight, three), "{id}");
        }
    }

    #[test]
    fn only_parts_that_exist_are_accepted() {
        assert_eq!(Shard::new(0, 1), Ok(Shard::WHOLE));
        assert_eq!(Shard::new(7, 8).map(|shard| shard.lease_name("renewer")), Ok("renewer-7".to_owned()));
        assert_eq!(Shard::WHOLE.lease_name("renewer"), "renewer");
        for (index, count) in [(8, 8), (0, 0), (1, 1)] {
            assert_eq!(Shard::new(index, count), Err(InvalidShard { index, count }));
        }
    }
}
