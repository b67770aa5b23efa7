//! `devenv url`.

use std::{collections::BTreeMap, process::ExitCode};

use super::Context;
use crate::{
    error::CliError,
    project::{Project, database_url},
    render,
};
use clap::{Args, ValueEnum};
use devenv_platform::{DatabaseFacts, Endpoints};

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
    /// The file that leads kubectl to it
    Kubeconfig,
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
        What::Kubeconfig => Some(endpoints.kubeconfig.display().to_string()),
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
    database_url(project.client().await?, namespace, facts).await
}
