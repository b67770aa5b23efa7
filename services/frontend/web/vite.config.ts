import { defineConfig } from "vite";

// `npm run dev` serves the page itself; what is live comes from a running system's Ingress.
const ingress = "http://127.0.0.1:8080";

export default defineConfig({
  build: { target: "es2022", sourcemap: true, chunkSizeWarningLimit: 200 },
  server: {
    proxy: {
      "/socket.io": { target: ingress, ws: true },
      "/api3": { target: ingress },
    },
  },
});
