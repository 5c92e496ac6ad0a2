//! Settings of a program that is run, and the environment that tells it of them.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use smcd::SmcConfig;

/// How connections of the program become SMC-D.
#[derive(Debug, Default, Args)]
pub(crate) struct Settings {
    /// Bytes of each receive buffer, such as 64K or 1M [environment: SMCD_RCVBUF].
    #[arg(long, value_name = "BYTES", value_parser = valid("SMCD_RCVBUF"))]
    receive_buffer: Option<String>,
    /// When connections are promoted: eager, off, or after so many bytes or messages, such as 256K:24
    /// [environment: SMCD_PROMOTION].
    #[arg(long, value_name = "POLICY", value_parser = valid("SMCD_PROMOTION"))]
    promotion: Option<String>,
    /// How to wait: adaptive, off, or awake for so many microseconds [environment: SMCD_BUSY_POLL].
    #[arg(long, value_name = "HOW", value_parser = valid("SMCD_BUSY_POLL"))]
    busy_poll: Option<String>,
    /// Where connections between containers meet: a directory that they share [environment: SMCD_RUNTIME_DIR].
    #[arg(long, value_name = "DIRECTORY")]
    runtime_dir: Option<PathBuf>,
    /// Peers to be asked by the SMC option of TCP, such as 10.0.0.0/8,fd00::/8; see syn-option
    /// [environment: SMCD_OPTION_PEERS].
    #[arg(long, value_name = "PREFIXES", value_parser = valid("SMCD_OPTION_PEERS"))]
    option_peers: Option<String>,
    /// Report what happens, to the standard error stream or a file [environment: SMCD_DEBUG].
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    debug: Option<OsString>,
}

impl Settings {
    /// The variables to be set.
    pub(crate) fn variables(&self) -> Vec<(&'static str, OsString)> {
        let text = |value: &Option<String>| value.as_ref().map(OsString::from);
        [
            ("SMCD_RCVBUF", text(&self.receive_buffer)),
            ("SMCD_PROMOTION", text(&self.promotion)),
            // Else nothing would be known of connections that are not to be promoted, and `ss` could not say so.
            ("SMCD_OBSERVE", (self.promotion.as_deref() == Some("off")).then(|| "1".into())),
            ("SMCD_BUSY_POLL", text(&self.busy_poll)),
            ("SMCD_RUNTIME_DIR", self.runtime_dir.clone().map(PathBuf::into_os_string)),
            ("SMCD_OPTION_PEERS", text(&self.option_peers)),
            ("SMCD_DEBUG", self.debug.clone()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

/// Asks the library what it makes of a value of this variable.
fn valid(variable: &'static str) -> impl Fn(&str) -> Result<String, String> + Clone {
    move |value: &str| {
        let lookup = |name: &str| (name == variable).then(|| value.into());
        match SmcConfig::from_lookup(lookup) {
            Ok(_) if !value.is_empty() => Ok(value.to_owned()),
            Ok(_) => Err("a value is needed".to_owned()),
            Err(error) => Err(format!("it has to be {}", error.expected)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_set() {
        assert!(Settings::default().variables().is_empty());
        let settings =
            Settings { promotion: Some("eager".into()), debug: Some("1".into()), ..Settings::default() };
        let variables = settings.variables();
        assert_eq!(variables, [("SMCD_PROMOTION", "eager".into()), ("SMCD_DEBUG", "1".into())]);
    }
}
