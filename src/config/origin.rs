//! Origin: where the configuration comes from, so that it can be read again while weir runs.

use std::path::{Path, PathBuf};

use super::load::Loaded;
use super::report::ConfigError;
use super::{Config, Source, locate};

/// The variable that names the file.
const VARIABLE: &str = "WEIR_CONFIG";

/// The file, if there is one, and the environment. It is not to be printed: the environment has keys.
pub struct Origin {
    /// The file of the command line.
    flag: Option<PathBuf>,
    environment: Vec<(String, String)>,
    /// The file that was read. From then on it has to be there.
    found: Option<PathBuf>,
}

/// A configuration that is looked at.
#[derive(Debug)]
pub struct Examined {
    /// What would be in effect.
    pub config: Config,
    /// What of it is likely not meant, a line each.
    pub doubts: Vec<String>,
    /// The providers that the file names; others are built in.
    pub written: Vec<String>,
    /// The file, if there is one.
    pub path: Option<PathBuf>,
}

impl Origin {
    /// `flag` is the file that the command line names; `environment` is that of the process.
    pub fn new(flag: Option<PathBuf>, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { flag, environment: environment.into_iter().collect(), found: None }
    }

    /// Reads the configuration, for the first time or again. What was a file has to be one again: without it, the
    /// defaults would silently take its place.
    pub fn load(&mut self) -> Result<Config, ConfigError> {
        let source = match &self.found {
            Some(path) => again(path)?,
            None => locate(self.flag.clone(), self.named())?,
        };
        let config = Config::load(source.as_ref().map(Source::as_file), self.environment.clone())?;
        self.found = source.map(|source| source.path);
        Ok(config)
    }

    /// Reads the configuration once, to be looked at. Writes nothing to the log.
    pub fn examine(&self) -> Result<Examined, ConfigError> {
        let source = locate(self.flag.clone(), self.named())?;
        let file = source.as_ref().map(Source::as_file);
        let Loaded { config, doubts, written } = Config::load_with_doubts(file, self.environment.clone())?;
        Ok(Examined { config, doubts, written, path: source.map(|source| source.path) })
    }

    fn named(&self) -> Option<PathBuf> {
        let variable = self.environment.iter().find(|(name, _)| name == VARIABLE);
        variable.map(|(_, path)| PathBuf::from(path))
    }
}

/// A pipe has been read to its end: a second time it would be empty, or never end.
fn again(path: &Path) -> Result<Option<Source>, ConfigError> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(ConfigError::unusable(path, "cannot be read again: it is not a regular file"));
    }
    locate(Some(path.to_owned()), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this text, and its origin.
    fn origin(text: &str) -> (tempfile::NamedTempFile, Origin) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let origin = Origin::new(Some(file.path().to_owned()), [("OPENAI_RPS".to_owned(), "3.5".to_owned())]);
        (file, origin)
    }

    #[test]
    fn what_is_read_again_is_the_new_text_and_the_same_environment() {
        let (file, mut origin) = origin("system_prompt = \"one\"");
        assert_eq!(origin.load().unwrap().system_prompt.as_deref(), Some("one"));

        std::fs::write(file.path(), "system_prompt = \"two\"\n[providers.openai]\nrps = 9.0").unwrap();
        let again = origin.load().unwrap();

        assert_eq!(again.system_prompt.as_deref(), Some("two"));
        assert!((again.providers["openai"].pace.rps - 3.5).abs() < f64::EPSILON, "the environment wins as before");
    }

    #[test]
    fn a_file_that_has_gone_does_not_become_the_defaults() {
        let (file, mut origin) = origin("system_prompt = \"one\"");
        origin.load().unwrap();
        let path = file.path().to_owned();

        drop(file);
        assert!(origin.load().unwrap_err().to_string().contains("cannot be read"));
        std::fs::create_dir(&path).unwrap();
        let why = origin.load().unwrap_err().to_string();
        std::fs::remove_dir(&path).unwrap();

        assert!(why.contains("not a regular file"), "{why}");
    }
}
