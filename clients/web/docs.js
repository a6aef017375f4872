/** The API page: Swagger UI over this server's own description. */

/** @type {any} */ (globalThis).SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // Its badge would be loaded from another host.
  validatorUrl: null,
});
