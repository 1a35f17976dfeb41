// Drives the unmodified JS client; prints one JSON object of what it saw.
// Arguments: folder with node_modules, connection string, admin connection string, queue.
const { createRequire } = require("node:module");
const [, , modules, connection, adminConnection, queue] = process.argv;
const { ServiceBusClient, ServiceBusAdministrationClient } = createRequire(modules + "/")(
  "@azure/service-bus",
);

async function main() {
  const seen = {};
  const admin = new ServiceBusAdministrationClient(adminConnection);
  seen.created = (await admin.createQueue(queue, { maxDeliveryCount: 2 })).maxDeliveryCount;

  const client = new ServiceBusClient(connection, { retryOptions: { maxRetries: 0 } });
  const sender = client.createSender(queue);
  await sender.sendMessages({ body: "one", applicationProperties: { n: 1 } });
  const batch = await sender.createMessageBatch();
  for (const body of ["two", "three", "four", "five"]) batch.tryAddMessage({ body });
  await sender.sendMessages(batch);
  const later = new Date(Date.now() + 3600_000);
  const [first] = await sender.scheduleMessages([{ body: "later" }, { body: "cancelled" }], later);
  await sender.cancelScheduledMessages(first.add ? first.add(1) : Number(first) + 1);

  const receiver = client.createReceiver(queue);
  seen.peeked = (await receiver.peekMessages(10)).map((m) => m.body);
  const got = [];
  while (got.length < 5) got.push(...(await receiver.receiveMessages(5 - got.length)));
  seen.received = got.map((m) => m.body);
  seen.property = got[0].applicationProperties.n;
  const renewed = await receiver.renewMessageLock(got[0]);
  seen.renewed = renewed.getTime() > Date.now();
  await receiver.completeMessage(got[0]);
  await receiver.abandonMessage(got[1]);
  await receiver.deadLetterMessage(got[2], {
    deadLetterReason: "why",
    deadLetterErrorDescription: "because",
  });
  await receiver.deferMessage(got[3]);
  const [deferred] = await receiver.receiveDeferredMessages(got[3].sequenceNumber);
  await receiver.completeMessage(deferred);
  await receiver.completeMessage(got[4]);
  const [again] = await receiver.receiveMessages(1);
  seen.again = [again.body, again.deliveryCount];
  await receiver.abandonMessage(again);

  const dead = client.createReceiver(queue, { subQueueType: "deadLetter" });
  seen.dead = (await dead.peekMessages(10)).map((m) => [m.body, m.deadLetterReason]);
  const counts = await admin.getQueueRuntimeProperties(queue);
  seen.counts = [
    counts.activeMessageCount,
    counts.scheduledMessageCount,
    counts.deadLetterMessageCount,
  ];
  try {
    await client.createSender("nowhere").sendMessages({ body: "x" });
  } catch (error) {
    seen.missing = error.code;
  }
  await client.close();
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
