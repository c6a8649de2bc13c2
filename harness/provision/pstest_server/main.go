// pstest-server speaks Pub/Sub's gRPC interface on one address, for machines on which Google's emulator cannot be had.
//
//	pstest-server --host=127.0.0.1 --port=8085
//
// Topics, subscriptions and schemas are kept and checked by Google's own fake, the package pstest. Messages are not:
// pstest is made for unit tests of some messages, and in a chaos run its queue would falsify verdicts or stop the run:
//
//   - a Seek back over acknowledged messages ends the process (it makes messages without content, and then reads them);
//   - a message that nobody fetches for ten minutes is dropped, which a harness must report as the pipeline's loss;
//   - every message ever published stays in memory, and each delivery looks at the whole backlog under one lock, every
//     10 ms for each subscription; an ack deadline that is changed by UpdateSubscription is ignored.
//
// So queue.go keeps the messages. It does what Google's emulator was measured to do (tests/conformance/test_provision.py
// asks both the same questions): redelivery at the ack deadline or on a nack, ack ids that only count for the latest
// delivery, Seek by time, retained acknowledged messages, dead-letter topics, ordering keys, streaming pull with flow
// control. What it cannot do it refuses with UNIMPLEMENTED instead of ignoring it: filters, exactly-once delivery, push
// and other exports, snapshots. All of it is in memory.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

func main() {
	host := flag.String("host", "127.0.0.1", "address to listen on")
	port := flag.Int("port", 8085, "port to listen on")
	flag.Parse()

	listener, err := net.Listen("tcp", net.JoinHostPort(*host, fmt.Sprint(*port)))
	if err != nil {
		fail(err)
	}
	service := newServer()
	transport := grpc.NewServer(
		grpc.MaxRecvMsgSize(64<<20),
		// Clients of Google's libraries ping often; the default would answer them with "too many pings".
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	pb.RegisterPublisherServer(transport, service)
	pb.RegisterSubscriberServer(transport, service)
	pb.RegisterSchemaServiceServer(transport, service)

	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ended
		transport.Stop()
	}()
	fmt.Printf("pstest-server listens on %s\n", listener.Addr())
	if err := transport.Serve(listener); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "pstest-server: %v\n", err)
	os.Exit(1)
}
