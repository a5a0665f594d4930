//! The order in which CPython walks a set of `(i, j)` tuples.
//!
//! The reference collects the candidate grids in a Python `set` and sorts them by area only, so
//! candidates of one area stay in the order of CPython's hash table. That order is fixed by the
//! hash of a tuple of small integers and by the insertion algorithm, both unchanged since
//! CPython 3.8 (`Objects/tupleobject.c`, `Objects/setobject.c`); this is a table with the same
//! rules. Hashes do not depend on `PYTHONHASHSEED`, which salts strings only.

/// Smallest table of a set (`PySet_MINSIZE`).
const MIN_SLOTS: usize = 8;
/// Neighbouring slots tried before jumping (`LINEAR_PROBES`).
const LINEAR_PROBES: usize = 9;
/// Bits of the hash mixed into each jump (`PERTURB_SHIFT`).
const PERTURB_SHIFT: u32 = 5;

/// Pairs in the order of a CPython set filled in the order of insertion.
pub(super) struct PairSet {
    slots: Vec<Option<(u32, u32)>>,
    used: usize,
}

impl PairSet {
    pub(super) fn new() -> Self {
        Self { slots: vec![None; MIN_SLOTS], used: 0 }
    }

    /// Adds a pair; a pair already present is left where it is.
    pub(super) fn insert(&mut self, pair: (u32, u32)) {
        if !place(&mut self.slots, pair) {
            return;
        }
        self.used += 1;
        let mask = self.slots.len() - 1;
        if self.used * 5 >= mask * 3 {
            // Sets beyond 50 000 entries double instead of quadrupling.
            let wanted = self.used * if self.used > 50_000 { 2 } else { 4 };
            let mut size = MIN_SLOTS;
            while size <= wanted {
                size *= 2;
            }
            let mut slots = vec![None; size];
            for &old in self.slots.iter().flatten() {
                place(&mut slots, old);
            }
            self.slots = slots;
        }
    }

    /// The pairs in iteration order.
    pub(super) fn into_pairs(self) -> impl Iterator<Item = (u32, u32)> {
        self.slots.into_iter().flatten()
    }
}

/// Puts `pair` into its slot; false when it was there already.
fn place(slots: &mut [Option<(u32, u32)>], pair: (u32, u32)) -> bool {
    let mask = slots.len() - 1;
    let mut perturb = tuple_hash(pair);
    let mut index = perturb as usize & mask;
    loop {
        let probes = if index + LINEAR_PROBES <= mask { LINEAR_PROBES } else { 0 };
        for slot in &mut slots[index..=index + probes] {
            match slot {
                None => {
                    *slot = Some(pair);
                    return true;
                }
                Some(found) if *found == pair => return false,
                Some(_) => {}
            }
        }
        perturb >>= PERTURB_SHIFT;
        index = index.wrapping_mul(5).wrapping_add(1).wrapping_add(perturb as usize) & mask;
    }
}

/// `hash((i, j))` of a 64-bit CPython: the xxHash lanes of `tuplehash`. The hash of a small
/// integer is the integer.
fn tuple_hash((i, j): (u32, u32)) -> u64 {
    const PRIME_1: u64 = 11_400_714_785_074_694_791;
    const PRIME_2: u64 = 14_029_467_366_897_019_727;
    const PRIME_5: u64 = 2_870_177_450_012_600_261;
    let mut hash = PRIME_5;
    for lane in [i, j] {
        hash = hash.wrapping_add(u64::from(lane).wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1);
    }
    hash = hash.wrapping_add(2 ^ (PRIME_5 ^ 0x0035_D373));
    // -1 is CPython's error value and never a hash.
    if hash == u64::MAX { 1_546_275_796 } else { hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_cpythons() {
        // hash((1, 2)), hash((3, 1)) and hash((12, 1)) of CPython 3.11.
        assert_eq!(tuple_hash((1, 2)).cast_signed(), -3_550_055_125_485_641_917);
        assert_eq!(tuple_hash((3, 1)).cast_signed(), 8_756_109_708_711_196_808);
        assert_eq!(tuple_hash((12, 1)).cast_signed(), -7_907_666_742_645_488_893);
    }

    #[test]
    fn a_pair_is_kept_once() {
        let mut set = PairSet::new();
        for pair in [(1, 1), (2, 1), (1, 1), (2, 1)] {
            set.insert(pair);
        }
        assert_eq!(set.into_pairs().count(), 2);
    }
}
