//! The rows of one filter: its route ids, each with the actors that have it, one bit for each.

use std::collections::HashMap;

use smallvec::SmallVec;

/// Up to here the rows of a filter are a plain list.
const ROWS_LISTED_MAX: usize = 8;

/// A route id; `None` stands for one that equals the filter, which is the common case.
pub(super) type RowId = Option<Box<[u8]>>;

/// The rows of one filter, by id, each with the lanes of its actors.
#[derive(Debug)]
pub(super) enum Rows {
    Few(SmallVec<[(RowId, u64); 1]>),
    Many(HashMap<RowId, u64>),
}

impl Default for Rows {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Rows {
    pub(super) fn lanes_mut(&mut self, id: &RowId) -> Option<&mut u64> {
        match self {
            Self::Few(rows) => rows.iter_mut().find(|(other, _)| other == id).map(|(_, lanes)| lanes),
            Self::Many(rows) => rows.get_mut(id),
        }
    }

    pub(super) fn insert(&mut self, id: RowId, lanes: u64) {
        match self {
            Self::Few(rows) if rows.len() < ROWS_LISTED_MAX => rows.push((id, lanes)),
            Self::Few(rows) => {
                let mut map: HashMap<_, _> = rows.drain(..).collect();
                map.insert(id, lanes);
                *self = Self::Many(map);
            }
            Self::Many(rows) => drop(rows.insert(id, lanes)),
        }
    }

    pub(super) fn remove(&mut self, id: &RowId) {
        match self {
            Self::Few(rows) => rows.retain(|(other, _)| other != id),
            Self::Many(rows) => drop(rows.remove(id)),
        }
    }

    /// Their ids.
    pub(super) fn ids(&self) -> Vec<&RowId> {
        match self {
            Self::Few(rows) => rows.iter().map(|(id, _)| id).collect(),
            Self::Many(rows) => rows.keys().collect(),
        }
    }

    /// Clears a lane everywhere, and says which rows went; returns how many, and their ids' bytes.
    pub(super) fn clear(
        &mut self,
        bit: u64,
        filter_bytes: usize,
        mut went: impl FnMut(&RowId),
    ) -> (usize, usize) {
        let (mut gone, mut bytes) = (0, 0);
        let mut keep = |id: &RowId, lanes: &mut u64| {
            let had = *lanes & bit != 0;
            *lanes &= !bit;
            if had && *lanes == 0 {
                gone += 1;
                went(id);
                bytes += row_bytes(filter_bytes, id);
            }
            *lanes != 0
        };
        match self {
            Self::Few(rows) => rows.retain(|(id, lanes)| keep(id, lanes)),
            Self::Many(rows) => rows.retain(|id, lanes| keep(id, lanes)),
        }
        (gone, bytes)
    }

    pub(super) fn holds(&self, id: &RowId) -> bool {
        match self {
            Self::Few(rows) => rows.iter().any(|(other, _)| other == id),
            Self::Many(rows) => rows.contains_key(id),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(rows) => rows.is_empty(),
            Self::Many(rows) => rows.is_empty(),
        }
    }
}

pub(super) fn row_bytes(filter_bytes: usize, id: &RowId) -> usize {
    filter_bytes + id.as_ref().map_or(0, |id| id.len())
}
