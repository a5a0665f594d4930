//! Choice of the tile grid (`find_closest_aspect_ratio` of the reference).

use super::set_order::PairSet;

/// A grid of tiles, each of one tile size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Tiles side by side.
    pub columns: u32,
    /// Tiles one below the other.
    pub rows: u32,
}

impl Grid {
    /// Number of tiles in the grid (the thumbnail is not one of them).
    pub fn tiles(self) -> u32 {
        self.columns * self.rows
    }
}

/// The grid whose aspect ratio is closest to that of a `width` × `height` image.
///
/// Candidates are all grids of `min_tiles` to `max_tiles` tiles, in ascending order of area. A
/// candidate replaces the best so far when its aspect ratio is nearer to that of the image, or
/// equally near and the image has more than half the pixels of the candidate
/// (`width · height > 0.5 · tile_size² · columns · rows`). Candidates of one area are looked at
/// in the order of the reference (see the module source of `set_order`).
///
/// Sizes are in pixels. No candidate (`min_tiles > max_tiles`, `max_tiles = 0`) gives a grid of
/// one tile, and so does an image without pixels.
pub fn choose_grid(width: u32, height: u32, tile_size: u32, min_tiles: u32, max_tiles: u32) -> Grid {
    let aspect = f64::from(width) / f64::from(height);
    // Below 2^53 for every image that fits in memory, so exact.
    let image_area = f64::from(width) * f64::from(height);
    let half_tile_area = 0.5 * f64::from(tile_size) * f64::from(tile_size);

    let mut best = Grid { columns: 1, rows: 1 };
    let mut best_difference = f64::INFINITY;
    for grid in candidates(min_tiles, max_tiles) {
        let (columns, rows) = (f64::from(grid.columns), f64::from(grid.rows));
        let difference = (aspect - columns / rows).abs();
        #[expect(clippy::float_cmp, reason = "the reference asks for exact equality")]
        let tie = difference == best_difference;
        if difference < best_difference {
            best_difference = difference;
            best = grid;
        } else if tie && image_area > half_tile_area * columns * rows {
            best = grid;
        }
    }
    best
}

/// All grids of `min_tiles..=max_tiles` tiles in the order of the reference.
fn candidates(min_tiles: u32, max_tiles: u32) -> Vec<Grid> {
    // The reference inserts for n in min..=max, i in 1..=n, j in 1..=n. A pair is new only when
    // the larger of i and j reaches n, except in the first round; the others are skipped here.
    let mut set = PairSet::new();
    for n in min_tiles..=max_tiles {
        for columns in 1..=n {
            let last = n.min(max_tiles / columns);
            let first = if columns == n || n == min_tiles { 1 } else { n };
            for rows in first..=last {
                if columns * rows >= min_tiles {
                    set.insert((columns, rows));
                }
            }
        }
    }
    let mut grids: Vec<Grid> = set.into_pairs().map(|(columns, rows)| Grid { columns, rows }).collect();
    grids.sort_by_key(|grid| grid.tiles());
    grids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_of_at_most_six_tiles() {
        let pairs: Vec<_> = candidates(1, 6).iter().map(|grid| (grid.columns, grid.rows)).collect();
        assert_eq!(
            pairs,
            [
                (1, 1),
                (1, 2),
                (2, 1),
                (3, 1),
                (1, 3),
                (4, 1),
                (1, 4),
                (2, 2),
                (1, 5),
                (5, 1),
                (6, 1),
                (2, 3),
                (1, 6),
                (3, 2)
            ]
        );
    }

    #[test]
    fn equal_distance_takes_the_larger_grid_only_for_large_images() {
        let one = Grid { columns: 1, rows: 1 };
        let four = Grid { columns: 2, rows: 2 };
        // 2·448·448 pixels is half of four tiles: not more than half.
        assert_eq!(choose_grid(448, 448, 448, 1, 6), one);
        assert_eq!(choose_grid(640, 640, 448, 1, 6), four);
    }

    #[test]
    fn ties_inside_one_area_follow_the_set_order() {
        // Aspect 5/4 is 0.75 from both 1/2 and 2/1.
        let two = choose_grid(10, 8, 448, 2, 2);
        assert_eq!((two.columns, two.rows), (1, 2));
        // Aspect 5/3 is 4/3 from both 3/1 and 1/3.
        let three = choose_grid(5, 3, 448, 3, 3);
        assert_eq!((three.columns, three.rows), (3, 1));
    }

    #[test]
    fn without_candidates_the_grid_is_one_tile() {
        assert_eq!(choose_grid(100, 100, 448, 3, 2).tiles(), 1);
        assert_eq!(choose_grid(100, 100, 448, 0, 0).tiles(), 1);
    }
}
