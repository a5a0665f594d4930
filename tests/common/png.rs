//! Pieces of PNG files.

/// A chunk: length, kind, data and checksum.
pub fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(&kind);
    crc.update(data);
    [(data.len() as u32).to_be_bytes().as_slice(), &kind, data, &crc.sum().to_be_bytes()].concat()
}
