//! `POST /v1/inspect`: the tiles the model gets of an image.

use std::io::Cursor;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::imageops::{FilterType, resize};
use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

use super::Shared;
use super::api::{ApiError, ImageFile, InspectRequest};
use crate::settings::ImageOptions;

/// Side of the tiles that are sent back; larger ones are made smaller.
const LARGEST: u32 = 224;

/// Answers a request.
///
/// # Errors
/// When the request or its image cannot be used.
pub(super) async fn inspect(State(shared): State<Arc<Shared>>, request: Request) -> Result<Json<Value>, ApiError> {
    shared.keys.check(request.headers())?;
    let (body, share) = shared.read_body(request).await?.into_parts();
    let server = Arc::clone(&shared);
    let resolve = move || server.reader.resolve_tiles(InspectRequest::parse(&body)?);
    let (mut image, options) = shared.decode(&share, resolve).await?;
    shared.fetch(std::slice::from_mut(&mut image)).await?;
    let server = Arc::clone(&shared);
    shared.decode(&share, move || server.inspected(&image, &options)).await.map(Json)
}

impl Shared {
    fn inspected(&self, image: &ImageFile, options: &ImageOptions) -> Result<Value, ApiError> {
        let image = self.reader.read_tiles(image, options)?;
        let limits = self.reader.limits();
        let tiles = image.tiles().iter().map(as_data_url).collect::<Result<Vec<String>, ApiError>>()?;
        let grid = image.grid();
        Ok(json!({
            "grid": {"columns": grid.columns, "rows": grid.rows},
            "thumbnail": tiles.len() > (grid.columns * grid.rows) as usize,
            "tile_size": limits.tile_size,
            "image_tokens": tiles.len() * limits.tokens_per_tile,
            "tiles": tiles,
        }))
    }
}

fn as_data_url(tile: &RgbImage) -> Result<String, ApiError> {
    let small = (tile.width() > LARGEST).then(|| resize(tile, LARGEST, LARGEST, FilterType::Triangle));
    let mut bytes = Vec::new();
    small.as_ref().unwrap_or(tile).write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png).map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "tile_failed", format!("a tile was not written: {error}"))
    })?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}
