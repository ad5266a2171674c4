//! A number that grows with each start of a node, so that nothing that it said in an earlier life
//! counts. [T-BEA-6]

use crate::disk;
use std::fs;
use std::io;
use std::path::Path;

/// Name of the file inside the data folder.
const FILE: &str = "epoch";

/// The epoch of this start: the time, or one more than the last one where the clock went back.
/// It is on disk before it is returned, so that it is never used twice.
///
/// # Errors
/// When the data folder cannot be read or written, or the file holds something else.
pub fn next(data_dir: &Path, now_ms: u64) -> io::Result<u64> {
    let path = data_dir.join(FILE);
    let last = match fs::read_to_string(&path) {
        Ok(text) => Some(text.trim().parse::<u64>().map_err(|_| {
            let why = format!("{} does not hold a number", path.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let epoch = last.map_or(now_ms, |last| now_ms.max(last.saturating_add(1)));
    disk::replace(data_dir, FILE, format!("{epoch}\n").as_bytes())?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_even_when_the_clock_goes_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let next = |now_ms| next(dir.path(), now_ms).expect("epoch");
        assert_eq!(next(1_000), 1_000);
        assert_eq!(next(1_000), 1_001);
        assert_eq!(next(5), 1_002);
        assert_eq!(next(9_000), 9_000);
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1);
    }

    #[test]
    fn a_damaged_file_stops_the_node_instead_of_starting_over() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join(FILE), "x").expect("write");
        let error = next(dir.path(), 1).expect_err("damaged");
        assert!(error.to_string().contains("epoch"), "{error}");
    }
}
