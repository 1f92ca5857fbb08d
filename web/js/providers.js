import { request } from "./server.js";

/**
 * What the server knows of providers and download services: their names and titles, the pages where keys are made, and
 * the models of each provider, id -> name to show.
 */
export const { providers, services } = await request("providers").catch(() => ({ providers: [], services: [] }));
