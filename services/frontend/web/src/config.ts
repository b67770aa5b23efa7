/** The configuration that the server makes from its environment when the page is opened. */

export interface Config {
  /** Base URL of api3; empty: where the page comes from. */
  api3Url: string;
  /** Base URL of the Ingress, for people; empty: unknown. */
  ingressUrl: string;
  /** Cloud Run's names of what serves this page; empty elsewhere. */
  service: string;
  revision: string;
}

export function parseConfig(value: unknown): Config {
  const text = (name: string) => {
    const found = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
    return typeof found === "string" ? found : "";
  };
  return {
    api3Url: text("api3_url").replace(/\/+$/, ""),
    ingressUrl: text("ingress_url").replace(/\/+$/, ""),
    service: text("k_service"),
    revision: text("k_revision"),
  };
}

export async function loadConfig(): Promise<Config> {
  const response = await fetch("/config.json", { cache: "no-store" });
  if (!response.ok) throw new Error(`/config.json: ${response.status} ${response.statusText}`);
  return parseConfig(await response.json());
}
