// Errors as application/problem+json (RFC 9457).

/** Most fields that one answer names; an array of a thousand bad records would
 * otherwise be answered with a megabyte. */
export const MAX_ERRORS = 1000;

const TITLES = {
  400: "Bad Request",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  413: "Payload Too Large",
  415: "Unsupported Media Type",
  422: "Unprocessable Entity",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

/** An error as the client sees it; thrown anywhere, answered by the error handler. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {string} detail a sentence for the one who called
   * @param {{field: string, index?: number, message: string}[]} [errors] each bad field
   * @param {Record<string, string>} [headers]
   */
  constructor(status, detail, errors = [], headers = {}) {
    super(detail);
    this.status = status;
    this.errors = errors;
    this.headers = headers;
  }

  /** 503 with Retry-After: nothing is known to have been written. */
  static unavailable(detail) {
    return new Problem(503, detail, [], { "Retry-After": "1" });
  }

  /** 405 with Allow. */
  static methodNotAllowed(allow) {
    return new Problem(405, `this resource answers ${allow} only`, [], { Allow: allow });
  }

  /** Answers with it. */
  send(response) {
    const omitted = this.errors.length - MAX_ERRORS;
    const body = JSON.stringify({
      type: "about:blank",
      title: TITLES[this.status] ?? "Error",
      status: this.status,
      detail: this.message,
      ...(this.errors.length > 0 && { errors: this.errors.slice(0, MAX_ERRORS) }),
      ...(omitted > 0 && { errors_omitted: omitted }),
    });
    response.status(this.status).set(this.headers);
    response.setHeader("Content-Type", "application/problem+json");
    response.end(body);
  }
}
