//! Locate: which file the configuration is read from.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::report::ConfigError;

/// The file that is read when none is named, if it is there.
const HERE: &str = "config.toml";

/// The largest configuration file, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// A configuration file that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it was found, as it was named.
    pub path: PathBuf,
    /// Its name in messages.
    pub shown: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// The name and the text, as [`super::Config::load`] takes them.
    pub fn as_file(&self) -> (&str, &str) {
        (&self.shown, &self.text)
    }
}

/// Reads the file that `--config` names, else the one that `WEIR_CONFIG` names, else `config.toml` in the working
/// directory. `None`: that one is not there and nothing was named, so the defaults apply. A file that was named must be
/// there. An empty `WEIR_CONFIG` names nothing.
pub fn locate(flag: Option<PathBuf>, env_value: Option<PathBuf>) -> Result<Option<Source>, ConfigError> {
    locate_from(flag, env_value, Path::new(HERE))
}

fn locate_from(flag: Option<PathBuf>, env_value: Option<PathBuf>, here: &Path) -> Result<Option<Source>, ConfigError> {
    let named = flag.or_else(|| env_value.filter(|path| !path.as_os_str().is_empty()));
    let optional = named.is_none();
    let path = named.unwrap_or_else(|| here.to_owned());
    match read(&path) {
        Ok(text) => Ok(Some(Source { shown: path.display().to_string(), path, text })),
        Err(error) if optional && error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError::unusable(&path, format_args!("cannot be read: {error}"))),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {BYTES_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with files whose text is their name.
    fn directory(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        directory
    }

    /// The text of the file that is found, given the names of three files.
    fn found(at: &Path, flag: Option<&str>, variable: Option<&str>) -> Result<Option<String>, String> {
        let path = |name: &str| at.join(name);
        let source = locate_from(flag.map(path), variable.map(path), &at.join("here"));
        source.map(|source| source.map(|source| source.text)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_flag_wins_over_the_variable_and_the_variable_over_the_working_directory() {
        let directory = directory(&["flag", "variable", "here"]);
        let at = directory.path();

        assert_eq!(found(at, Some("flag"), Some("variable")), Ok(Some("flag".into())));
        assert_eq!(found(at, None, Some("variable")), Ok(Some("variable".into())));
        assert_eq!(found(at, None, None), Ok(Some("here".into())));
    }

    #[test]
    fn a_named_file_must_be_there_and_an_unnamed_one_need_not() {
        let directory = directory(&[]);
        let at = directory.path();

        assert_eq!(found(at, None, None), Ok(None));
        for refused in [found(at, Some("flag"), None), found(at, None, Some("variable"))] {
            assert!(refused.is_err_and(|why| why.contains("cannot be read: No such file")));
        }
    }

    #[test]
    fn an_empty_variable_names_no_file() {
        let directory = directory(&["here"]);

        let source = locate_from(None, Some(PathBuf::new()), &directory.path().join("here")).unwrap();

        assert_eq!(source.unwrap().text, "here");
    }

    #[test]
    fn what_cannot_be_a_configuration_is_refused_even_if_nothing_was_named() {
        let directory = directory(&[]);
        let at = directory.path();
        let here = at.join("here");

        std::fs::write(&here, b"\xff").unwrap();
        assert!(found(at, None, None).is_err_and(|why| why.contains("UTF-8")));
        std::fs::write(&here, vec![b'#'; BYTES_MAX as usize + 1]).unwrap();
        assert!(found(at, None, None).is_err_and(|why| why.contains("more than 1048576 bytes")));
        std::fs::remove_file(&here).unwrap();
        std::fs::create_dir(&here).unwrap();
        assert!(found(at, None, None).is_err_and(|why| why.starts_with(&here.display().to_string())));
    }
}
