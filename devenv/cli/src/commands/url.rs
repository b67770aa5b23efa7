//! `devenv url`.

use std::{collections::BTreeMap, process::ExitCode};

use clap::{Args, ValueEnum};
use devenv_platform::{DatabaseFacts, Endpoints};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::Context;
use crate::{error::CliError, project::Project, render};

/// Print the address of something.
///
/// Without a name: all of them.
#[derive(Debug, Args)]
pub struct UrlArgs {
    /// What
    what: Option<What>,
}

/// What has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The Ingress, on 127.0.0.1
    Ingress,
    /// The Ingress' own address, as `kubectl get ingress` shows it
    Address,
    /// The Cloud Run service
    Frontend,
    /// The read side behind the Ingress
    Api3,
    /// The database, with its user and password
    Database,
    /// The Kubernetes API
    Kubernetes,
}

pub async fn url(args: UrlArgs, context: &Context) -> Result<ExitCode, CliError> {
    let project = context.project()?;
    let endpoints = project.endpoints()?;
    let Some(what) = args.what else {
        let mut all = BTreeMap::new();
        for (name, url) in [
            ("ingress", endpoints.ingress.clone()),
            ("address", endpoints.ingress_also.first().cloned()),
            ("frontend", endpoints.cloud_run.values().next().cloned()),
            ("kubernetes", Some(endpoints.kubernetes.clone())),
            (
                "database",
                endpoints.database.as_ref().map(without_password),
            ),
        ] {
            all.extend(url.map(|u| (name.to_owned(), u)));
        }
        render::urls(&all, context.format);
        return Ok(ExitCode::SUCCESS);
    };
    let url = match what {
        What::Ingress | What::Api3 => endpoints.ingress.clone(),
        What::Address => endpoints.ingress_also.first().cloned(),
        What::Frontend => endpoints.cloud_run.values().next().cloned(),
        What::Kubernetes => Some(endpoints.kubernetes.clone()),
        What::Database => Some(database(&project, context, &endpoints).await?),
    };
    let Some(url) = url else {
        let name = what
            .to_possible_value()
            .map(|v| v.get_name().to_owned())
            .unwrap_or_default();
        return Err(CliError::Check(format!(
            "this project has no {name}, or it has no address here"
        )));
    };
    render::url(&url, context.format);
    Ok(ExitCode::SUCCESS)
}

fn without_password(d: &DatabaseFacts) -> String {
    format!("mysql://{}@{}:{}/{}", d.user, d.host, d.port, d.database)
}

/// The only place where the password is printed: people ask for it by name.
async fn database(project: &Project, context: &Context, e: &Endpoints) -> Result<String, CliError> {
    let Some(facts) = &e.database else {
        return Err(CliError::Check("this project has no database".to_owned()));
    };
    let namespace = context.namespace.as_deref().unwrap_or(&e.namespace);
    let secrets: Api<Secret> = Api::namespaced(project.client().await?, namespace);
    let secret = secrets.get(&facts.secret).await?;
    let password = secret
        .data
        .as_ref()
        .and_then(|d| d.get(devenv_platform::cloudsql::CREDENTIALS_PASSWORD))
        .map(|b| String::from_utf8_lossy(&b.0).into_owned())
        .unwrap_or_default();
    Ok(format!(
        "mysql://{}:{}@{}:{}/{}",
        percent(&facts.user),
        percent(&password),
        facts.host,
        facts.port,
        facts.database
    ))
}

/// Escapes what may not stand in the user part of a URL (RFC 3986 section 3.2.1).
fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_survive_a_url() {
        assert_eq!(percent("a:b@c/ñ"), "a%3Ab%40c%2F%C3%B1");
    }
}
