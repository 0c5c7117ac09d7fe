//! Items grouped by the row that they belong to, so that a kernel sums a row's items in order, without atomics.

/// Items grouped by row, as kernels read them.
pub(crate) struct Groups {
    /// The rows that have items, in increasing order.
    pub(crate) rows: Vec<i32>,
    /// Where the items of each row start, and the number of all items.
    pub(crate) starts: Vec<i32>,
    /// The items of the first row in increasing order, then those of the second, and so on.
    pub(crate) items: Vec<i32>,
}

impl Groups {
    /// The row of item i is `of_items[i]`, one of `count` rows. The items of row `skipped` are left out.
    pub(crate) fn new(of_items: &[i32], count: usize, skipped: Option<u32>) -> Groups {
        let of_items = || {
            let rows = of_items.iter().map(|row| *row as usize).enumerate();
            rows.filter(move |(_, row)| skipped != Some(*row as u32))
        };
        // First the number of items of each row, then the place of the next one.
        let mut places = vec![0; count];
        of_items().for_each(|(_, row)| places[row] += 1);
        let (mut rows, mut starts, mut end) = (Vec::new(), Vec::new(), 0);
        for (row, place) in places.iter_mut().enumerate().filter(|(_, items)| **items > 0) {
            rows.push(row as i32);
            starts.push(end as i32);
            end += std::mem::replace(place, end);
        }
        starts.push(end as i32);
        let mut items = vec![0; end];
        for (item, row) in of_items() {
            items[places[row]] = item as i32;
            places[row] += 1;
        }
        Groups { rows, starts, items }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_items_of_a_row_keep_their_order() {
        let Groups { rows, starts, items } = Groups::new(&[4, 1, 4, 0, 1, 4], 6, Some(0));
        assert_eq!((rows, starts, items), (vec![1, 4], vec![0, 2, 5], vec![1, 4, 0, 2, 5]));
        let Groups { rows, starts, items } = Groups::new(&[], 6, None);
        assert_eq!((rows, starts, items), (vec![], vec![0], vec![]));
    }
}
