//! Icons: PNG in the sizes of the hicolor theme, SVG as it is.

use std::{
    io::Cursor,
    path::{Path, PathBuf},
};

use image::{
    DynamicImage, ImageFormat, ImageReader, Limits, RgbaImage,
    imageops::{self, FilterType},
};

use super::{DesktopError, Planned};
use crate::config::{Icon, IconKind};

/// Sizes of icons that themes look for, in pixels.
const SIZES: [u32; 9] = [16, 22, 24, 32, 48, 64, 96, 128, 256];
/// Width and height of an icon as it is given, in pixels.
const SIDE_LIMIT: u32 = 4096;
/// Memory for an icon while it is decoded, in bytes.
const MEMORY_LIMIT: u64 = 256 << 20;

/// The files of an icon: for applications and for files.
pub(super) fn files(icon: &Icon, name: &str) -> Result<Vec<Planned>, DesktopError> {
    let mut files = Vec::new();
    match icon.kind {
        IconKind::Svg => put(&mut files, "scalable", &format!("{name}.svg"), icon.data()),
        IconKind::Png => {
            let whole = decode(icon.data()).map_err(DesktopError::Icon)?;
            for side in SIZES {
                let mut bytes = Vec::new();
                let sized = DynamicImage::ImageRgba8(fitted(&whole, side));
                sized.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(DesktopError::Icon)?;
                put(&mut files, &format!("{side}x{side}"), &format!("{name}.png"), &bytes);
            }
        }
    }
    Ok(files)
}

fn put(files: &mut Vec<Planned>, size: &str, name: &str, contents: &[u8]) {
    for kind in ["apps", "mimetypes"] {
        let path: PathBuf =
            [Path::new("icons/hicolor"), size.as_ref(), kind.as_ref(), name.as_ref()].iter().collect();
        files.push(Planned { path, contents: contents.to_vec() });
    }
}

fn decode(data: &[u8]) -> image::ImageResult<RgbaImage> {
    let mut reader = ImageReader::with_format(Cursor::new(data), ImageFormat::Png);
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_LIMIT);
    limits.max_image_height = Some(SIDE_LIMIT);
    limits.max_alloc = Some(MEMORY_LIMIT);
    reader.limits(limits);
    Ok(reader.decode()?.into_rgba8())
}

/// The picture in a square of this side: in the middle, with its proportions.
fn fitted(whole: &RgbaImage, side: u32) -> RgbaImage {
    let (width, height) = whole.dimensions();
    let longest = u64::from(width.max(height)).max(1);
    let scaled = |length: u32| {
        let length = u64::from(length).saturating_mul(u64::from(side)) / longest;
        u32::try_from(length).unwrap_or(side).clamp(1, side)
    };
    let (width, height) = (scaled(width), scaled(height));
    let small = imageops::resize(whole, width, height, FilterType::Lanczos3);
    let mut square = RgbaImage::new(side, side);
    let middle = |length: u32| i64::from((side - length) / 2);
    imageops::overlay(&mut square, &small, middle(width), middle(height));
    square
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let picture = RgbaImage::from_pixel(width, height, image::Rgba([200, 10, 10, 255]));
        DynamicImage::ImageRgba8(picture).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
        bytes
    }

    #[test]
    fn every_size_is_a_square_of_that_size() {
        let icon = Icon::new(png(100, 50)).unwrap();
        let made = files(&icon, "x").unwrap();
        assert_eq!(made.len(), SIZES.len() * 2);
        for (file, side) in made.iter().zip(SIZES.iter().flat_map(|side| [side, side])) {
            let picture = decode(&file.contents).unwrap();
            assert_eq!(picture.dimensions(), (*side, *side));
            assert!(file.path.starts_with(format!("icons/hicolor/{side}x{side}")));
            assert_eq!(picture.get_pixel(0, 0).0[3], 0, "above a flat picture nothing is painted");
            assert!(picture.get_pixel(side / 2, side / 2).0[0] > 150);
        }
    }

    #[test]
    fn hostile_pictures_are_errors() {
        assert!(decode(&png(SIDE_LIMIT + 1, 1)).is_err());
        assert!(decode(&png(1, SIDE_LIMIT)).is_ok());
        let whole = png(30, 30);
        for cut in 0..whole.len() - 12 {
            let _ = decode(&whole[..cut]);
        }
        let mut bomb = whole;
        bomb[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        assert!(decode(&bomb).is_err());
    }
}
