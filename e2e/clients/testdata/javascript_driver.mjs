// Calls operations with the AWS SDK for JavaScript, as boto3_driver.py does
// with boto3. The SDK is where tools/install.sh put it, not beside this file.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [, , endpoint, packages] = process.argv;
const require = createRequire(packages + "/");
const sdk = require("@aws-sdk/client-app-mesh");

function clientOf(call) {
  const config = {
    endpoint,
    region: call.region,
    credentials: { accessKeyId: call.key, secretAccessKey: call.secret },
    maxAttempts: 1,
  };
  if (call.unsigned) {
    config.signer = { sign: async (request) => request };
  }
  const client = new sdk.AppMeshClient(config);
  client.requests = 0;
  client.middlewareStack.add((next) => (args) => (client.requests++, next(args)), { step: "finalizeRequest" });
  return client;
}

function plain(value) {
  if (value instanceof Date) return value.getTime();
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).filter(([, v]) => v !== undefined).map(([k, v]) => [k, plain(v)]));
  }
  return value;
}

async function pages(client, call) {
  const merged = {};
  for await (const page of sdk["paginate" + call.operation]({ client, pageSize: call.pageSize }, call.input)) {
    for (const [name, value] of Object.entries(page)) {
      if (Array.isArray(value)) merged[name] = (merged[name] ?? []).concat(value);
    }
  }
  return { ...merged, $metadata: { httpStatusCode: 200, requestId: "of no single one" } };
}

// The SDK has no presigner for App Mesh, only the signer under all of them.
async function presigned(call) {
  const { SignatureV4 } = require("@smithy/signature-v4");
  const { Sha256 } = require("@aws-crypto/sha256-js");
  if (call.operation !== "DescribeMesh") throw new Error("cannot presign " + call.operation);
  const { hostname, port, protocol, host } = new URL(endpoint);
  const credentials = { accessKeyId: call.key, secretAccessKey: call.secret };
  const signer = new SignatureV4({ service: "appmesh", region: call.region, credentials, sha256: Sha256 });
  const path = "/v20190125/meshes/" + encodeURIComponent(call.input.meshName);
  const request = { method: "GET", protocol, hostname, port: Number(port), path, query: {}, headers: { host } };
  const { query } = await signer.presign(request, { expiresIn: 60 });
  return { url: endpoint + path + "?" + new URLSearchParams(query) };
}

async function answer(call) {
  if (call.presign) return presigned(call);
  const client = clientOf(call);
  const rest = (metadata) => ({ status: metadata.httpStatusCode, request: metadata.requestId, pages: client.requests });
  try {
    const sent = call.pageSize ? pages(client, call) : client.send(new sdk[call.operation + "Command"](call.input));
    const { $metadata, ...output } = await sent;
    return { output: plain(output), ...rest($metadata) };
  } catch (error) {
    if (!(error instanceof sdk.AppMeshServiceException)) throw error;
    const known = sdk[error.name];
    const typed = known !== undefined && error instanceof known;
    return { error: { code: error.name, message: error.message, typed }, ...rest(error.$metadata) };
  } finally {
    client.destroy();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
