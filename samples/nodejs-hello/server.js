// A small service: greets whoever is named, and says that it is well.
import express from "express";

const app = express();
const greeting = process.env.GREETING ?? "Hello";

app.get("/", (request, response) => {
  response.type("text/plain").send(`${greeting} from Minuet\n`);
});

app.get("/greet/:name", (request, response) => {
  response.json({ message: `${greeting}, ${request.params.name}!` });
});

app.get("/healthz", (request, response) => response.json({ status: "ok" }));

const server = app.listen(process.env.PORT ?? 8080, "0.0.0.0", () => console.log("listening"));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
