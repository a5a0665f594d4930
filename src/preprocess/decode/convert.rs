//! Colour conversions of Pillow's `convert("RGB")`.

use image::RgbImage;

/// One CMYK pixel to RGB (`cmyk2rgb` of Pillow's `Convert.c`), 0 being no ink.
pub(super) fn cmyk_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let white = 255 - i32::from(black);
    [cyan, magenta, yellow].map(|ink| {
        // MULDIV255: ink · white / 255 without a division.
        let product = i32::from(ink) * white + 128;
        let shade = ((product >> 8) + product) >> 8;
        (white - shade).clamp(0, 255) as u8
    })
}

/// A 16-bit or wider gray value: clipped to a byte, not scaled.
pub(super) fn clip(value: i64) -> u8 {
    value.clamp(0, 255) as u8
}

/// A float gray value: truncated and clipped.
pub(super) fn clip_float(value: f32) -> u8 {
    // A float to integer cast saturates and takes NaN to 0.
    value as u8
}

/// Takes the alpha out of an RGB value multiplied with it (`unpackRGBa` of Pillow).
pub(super) fn unpremultiply(rgb: [u8; 3], alpha: u8) -> [u8; 3] {
    if alpha == 0 {
        return [0; 3];
    }
    rgb.map(|value| (u32::from(value) * 255 / u32::from(alpha)).min(255) as u8)
}

/// An image of `width` × `height` from one RGB triple a pixel, row by row.
///
/// Missing pixels are black: the iterator of a decoder may end early on damaged data.
pub(super) fn collect_rgb(width: u32, height: u32, pixels: impl Iterator<Item = [u8; 3]>) -> RgbImage {
    let mut rgb = RgbImage::new(width, height);
    for (target, pixel) in rgb.chunks_exact_mut(3).zip(pixels) {
        target.copy_from_slice(&pixel);
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cmyk_as_pillow() {
        assert_eq!(cmyk_to_rgb([10, 20, 30, 40]), [207, 198, 190]);
        assert_eq!(cmyk_to_rgb([200, 100, 50, 128]), [27, 77, 102]);
        assert_eq!(cmyk_to_rgb([0, 0, 0, 0]), [255; 3]);
        assert_eq!(cmyk_to_rgb([255, 255, 255, 255]), [0; 3]);
    }

    #[test]
    fn wide_values_clip() {
        assert_eq!(clip(-3), 0);
        assert_eq!(clip(200), 200);
        assert_eq!(clip(256), 255);
        assert_eq!(clip_float(254.99), 254);
        assert_eq!(clip_float(-0.5), 0);
        assert_eq!(clip_float(1e9), 255);
        assert_eq!(clip_float(f32::NAN), 0);
    }

    #[test]
    fn alpha_is_divided_out() {
        assert_eq!(unpremultiply([10, 200, 128], 128), [19, 255, 255]);
        assert_eq!(unpremultiply([10, 20, 30], 255), [10, 20, 30]);
        assert_eq!(unpremultiply([10, 20, 30], 0), [0; 3]);
    }
}
