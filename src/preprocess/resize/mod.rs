//! Bicubic resize, equal byte for byte to Pillow 10.4.
//!
//! Two passes, each a weighted sum in 22-bit fixed point: first along the rows into an 8-bit
//! image, then along the columns. Weights are in [`weights`], the sums in [`kernel`]; this file
//! moves the pixels.
//!
//! Both passes use one inner loop, a weighted sum of neighbouring *lines* of [`LANES`] bytes.
//! For the vertical pass a line is a piece of an image row. For the horizontal pass a block of
//! [`BLOCK_ROWS`] source rows is transposed so that a line holds one pixel column of the block.
//! Rows of the intermediate image are made when the vertical pass first needs them and dropped
//! when it has passed them.

#![expect(clippy::inline_always, reason = "what runs inside the AVX2 function must be compiled with AVX2")]

mod kernel;
mod weights;

use image::RgbImage;
use kernel::LANES;
use weights::Weights;

/// Source rows that the horizontal pass works on together: one line holds a pixel of each.
const BLOCK_ROWS: usize = LANES / 3;

/// Images below this many source plus target pixels are not worth a second thread.
const PARALLEL_PIXELS: usize = 1 << 19;

/// Resizes to `width` × `height` pixels with Pillow's `BICUBIC` filter.
///
/// Gives the bytes of `Image.resize((width, height), Image.BICUBIC)` on an RGB image with Pillow
/// 10.4 (horizontal pass first, as in all versions up to 12.0; 12.1 and later change the order
/// for some shapes). A side that keeps its length is copied. An empty source or target gives a
/// black image of the wanted size. Large images are shared by the machine's threads.
pub fn resize_bicubic(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    resize_with(image, width, height, threads)
}

/// [`resize_bicubic`] on at most `threads` threads.
pub(super) fn resize_with(image: &RgbImage, width: u32, height: u32, threads: usize) -> RgbImage {
    let mut target = RgbImage::new(width, height);
    if image.is_empty() || target.is_empty() {
        return target;
    }
    let job = Job::new(image, width, height);
    let pitch = width as usize * 3;
    let work = image.as_raw().len() + target.as_raw().len();
    let bands = if work < 3 * PARALLEL_PIXELS { 1 } else { threads.clamp(1, height as usize) };
    let rows = (height as usize).div_ceil(bands);

    let (first, others) = target.split_at_mut(pitch * rows.min(height as usize));
    std::thread::scope(|scope| {
        for (index, band) in others.chunks_mut(pitch * rows).enumerate() {
            let job = &job;
            scope.spawn(move || kernel::dispatch(job, (index + 1) * rows, band));
        }
        kernel::dispatch(&job, 0, first);
    });
    target
}

/// One resize: the source and the weights of both passes.
struct Job<'a> {
    source: &'a [u8],
    /// Bytes from one source row to the next.
    source_pitch: usize,
    source_rows: usize,
    horizontal: Weights,
    vertical: Weights,
}

impl<'a> Job<'a> {
    fn new(image: &'a RgbImage, width: u32, height: u32) -> Self {
        Self {
            source: image.as_raw(),
            source_pitch: image.width() as usize * 3,
            source_rows: image.height() as usize,
            horizontal: Weights::bicubic(image.width(), width),
            vertical: Weights::bicubic(image.height(), height),
        }
    }

    /// Fills `band`, rows of the target from row `first_row` on.
    #[inline(always)]
    fn run(&self, first_row: usize, band: &mut [u8]) {
        let row_bytes = self.horizontal.outputs() * 3;
        let mut window = Window::new(self, row_bytes);
        for (index, row) in band.chunks_exact_mut(row_bytes).enumerate() {
            let (start, taps) = self.vertical.taps(first_row + index);
            window.cover(self, start, start + taps.len());
            let lines = window.rows_from(start);
            for (chunk, piece) in row.chunks_mut(LANES).enumerate() {
                let sums = kernel::weighted_sum(&lines[chunk * LANES..], window.pitch, taps);
                piece.copy_from_slice(&sums[..piece.len()]);
            }
        }
    }

    /// Horizontal pass over at most [`BLOCK_ROWS`] source rows from `first` on into `out`.
    #[inline(always)]
    fn shrink_rows(&self, first: usize, rows: usize, block: &mut [u8], out: &mut [u8], pitch: usize) {
        /// Pixels transposed at a time, so that their lines stay in the first cache.
        const STRIP: usize = 128;
        let source = &self.source[first * self.source_pitch..(first + rows) * self.source_pitch];
        for (strip, lines) in block.chunks_mut(STRIP * LANES).enumerate() {
            for (row, pixels) in source.chunks_exact(self.source_pitch).enumerate() {
                let pixels = pixels[strip * STRIP * 3..].chunks_exact(3);
                for (line, pixel) in lines.chunks_exact_mut(LANES).zip(pixels) {
                    line[row * 3..row * 3 + 3].copy_from_slice(pixel);
                }
            }
        }
        for x in 0..self.horizontal.outputs() {
            let (start, taps) = self.horizontal.taps(x);
            let sums = kernel::weighted_sum(&block[start * LANES..], LANES, taps);
            for (row, pixel) in sums.chunks_exact(3).take(rows).enumerate() {
                let at = row * pitch + x * 3;
                out[at..at + 3].copy_from_slice(pixel);
            }
        }
    }
}

/// The rows of the intermediate image that the vertical pass needs next.
struct Window {
    /// Rows of `pitch` bytes, the first one being row `first` of the intermediate image.
    rows: Vec<u8>,
    first: usize,
    count: usize,
    /// Row length rounded up to whole lines, so that the last line of a row can be read whole.
    pitch: usize,
    /// Transposed block of source rows.
    block: Vec<u8>,
}

impl Window {
    fn new(job: &Job, row_bytes: usize) -> Self {
        let pitch = row_bytes.next_multiple_of(LANES);
        // Room for the longest sum, the block beyond it, and enough slack that rows are moved
        // to the front only now and then.
        let capacity = 2 * job.vertical.max_taps() + 2 * BLOCK_ROWS;
        Self {
            rows: vec![0; capacity.min(job.source_rows + BLOCK_ROWS) * pitch],
            first: 0,
            count: 0,
            pitch,
            block: vec![0; job.source_pitch / 3 * LANES],
        }
    }

    fn rows_from(&self, row: usize) -> &[u8] {
        &self.rows[(row - self.first) * self.pitch..]
    }

    /// Makes the rows `start..end` present. Neither bound ever decreases.
    #[inline(always)]
    fn cover(&mut self, job: &Job, start: usize, end: usize) {
        if self.count == 0 {
            self.first = start;
        }
        while self.first + self.count < end {
            let next = self.first + self.count;
            let rows = BLOCK_ROWS.min(job.source_rows - next);
            if (self.count + rows) * self.pitch > self.rows.len() {
                self.rows.copy_within((start - self.first) * self.pitch..self.count * self.pitch, 0);
                self.count -= start - self.first;
                self.first = start;
            }
            let out = &mut self.rows[self.count * self.pitch..];
            job.shrink_rows(next, rows, &mut self.block, out, self.pitch);
            self.count += rows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one output pixel at a time.
    fn by_definition(image: &RgbImage, width: u32, height: u32) -> RgbImage {
        let pass = |image: &RgbImage, weights: &Weights, vertical: bool| {
            let (w, h) = if vertical {
                (image.width(), weights.outputs() as u32)
            } else {
                (weights.outputs() as u32, image.height())
            };
            RgbImage::from_fn(w, h, |x, y| {
                let (start, taps) = weights.taps(if vertical { y } else { x } as usize);
                image::Rgb(std::array::from_fn(|channel| {
                    let sum: i64 = taps
                        .iter()
                        .enumerate()
                        .map(|(k, &weight)| {
                            let at = (start + k) as u32;
                            let (x, y) = if vertical { (x, at) } else { (at, y) };
                            i64::from(weight) * i64::from(image.get_pixel(x, y)[channel])
                        })
                        .sum();
                    ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
                }))
            })
        };
        let horizontal = Weights::bicubic(image.width(), width);
        let vertical = Weights::bicubic(image.height(), height);
        pass(&pass(image, &horizontal, false), &vertical, true)
    }

    fn noise(width: u32, height: u32) -> RgbImage {
        let mut state = 0x9E37_79B9u32;
        RgbImage::from_fn(width, height, |_, _| {
            image::Rgb(std::array::from_fn(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Extremes overshoot, so that clamping is exercised.
                if state >> 30 == 0 { 255 } else { (state >> 24) as u8 & 0x1F }
            }))
        })
    }

    #[test]
    fn equals_the_definition_for_every_kind_of_shape() {
        for ((w, h), (width, height)) in [
            ((1, 1), (7, 5)),
            ((3, 70), (17, 9)),
            ((200, 2), (5, 40)),
            ((33, 49), (33, 20)),
            ((33, 49), (10, 49)),
            ((64, 64), (64, 64)),
            ((50, 41), (1, 1)),
            ((129, 65), (130, 64)),
        ] {
            let image = noise(w, h);
            let expected = by_definition(&image, width, height);
            for threads in [1, 3, 64] {
                assert_eq!(
                    resize_with(&image, width, height, threads),
                    expected,
                    "{w}x{h} to {width}x{height} on {threads} threads"
                );
            }
        }
    }

    #[test]
    fn bands_meet_without_a_seam() {
        let image = noise(700, 400);
        let expected = by_definition(&image, 640, 300);
        for threads in [1, 2, 7, 1000] {
            assert_eq!(resize_with(&image, 640, 300, threads), expected);
        }
    }

    /// The vector code picked at run time against the code of the baseline.
    #[test]
    fn both_instruction_sets_agree() {
        let image = noise(301, 200);
        let job = Job::new(&image, 150, 333);
        let mut portable = RgbImage::new(150, 333);
        job.run(0, &mut portable);
        let mut picked = RgbImage::new(150, 333);
        kernel::dispatch(&job, 0, &mut picked);
        assert_eq!(portable, picked);
    }

    #[test]
    fn empty_images_do_not_fail() {
        assert_eq!(resize_bicubic(&RgbImage::new(0, 5), 2, 2), RgbImage::new(2, 2));
        assert_eq!(resize_bicubic(&RgbImage::new(5, 5), 0, 2).dimensions(), (0, 2));
    }
}
