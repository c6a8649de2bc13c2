package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"sync"
	"sync/atomic"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// How many messages one request or answer holds at most, as in the real service; about how many bytes an answer.
	mostMessages = 1000
	mostBytes    = 3 << 20
	// How long a Pull that may wait does wait.
	longestPull = 90 * time.Second
	// Ack deadlines in seconds, as in the real service.
	shortestLoan, longestLoan = 10, 600
)

// server is pstest's for topics, subscriptions and schemas, and its own for messages.
type server struct {
	*pstest.GServer
	nextID atomic.Uint64

	mu     sync.RWMutex
	topics map[string]map[string]*queue // topic -> subscription -> its queue
	queues map[string]*queue
}

func newServer() *server {
	log.SetOutput(io.Discard)  // it tells the log that the listener, which it insists on, is closed
	fake := pstest.NewServer() // what serves is only ours
	fake.Close()
	return &server{
		GServer: &fake.GServer,
		topics:  map[string]map[string]*queue{},
		queues:  map[string]*queue{},
	}
}

// ---------------------------------------------------------------------------------------- topics and subscriptions

func (s *server) CreateTopic(ctx context.Context, topic *pb.Topic) (*pb.Topic, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	made, err := s.GServer.CreateTopic(ctx, topic)
	if err == nil {
		s.topics[topic.Name] = map[string]*queue{}
	}
	return made, err
}

func (s *server) DeleteTopic(ctx context.Context, request *pb.DeleteTopicRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done, err := s.GServer.DeleteTopic(ctx, request)
	if err == nil {
		delete(s.topics, request.Topic) // its subscriptions keep what they have
	}
	return done, err
}

func (s *server) CreateSubscription(ctx context.Context, sub *pb.Subscription) (*pb.Subscription, error) {
	if err := refuse(sub); err != nil {
		return nil, err
	}
	if sub.AckDeadlineSeconds == 0 {
		sub.AckDeadlineSeconds = shortestLoan
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	made, err := s.GServer.CreateSubscription(ctx, sub)
	if err == nil {
		q := newQueue(made)
		s.queues[sub.Name] = q
		s.topics[sub.Topic][sub.Name] = q
	}
	return made, err
}

func (s *server) UpdateSubscription(ctx context.Context, request *pb.UpdateSubscriptionRequest) (*pb.Subscription, error) {
	if request.Subscription != nil {
		if err := refuse(request.Subscription); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	changed, err := s.GServer.UpdateSubscription(ctx, request)
	if err == nil {
		s.queues[changed.Name].configure(changed)
	}
	return changed, err
}

func (s *server) DeleteSubscription(ctx context.Context, request *pb.DeleteSubscriptionRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done, err := s.GServer.DeleteSubscription(ctx, request)
	if err == nil {
		s.detach(request.Subscription)
		s.queues[request.Subscription].close()
		delete(s.queues, request.Subscription)
	}
	return done, err
}

func (s *server) DetachSubscription(ctx context.Context, request *pb.DetachSubscriptionRequest) (*pb.DetachSubscriptionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	done, err := s.GServer.DetachSubscription(ctx, request)
	if err == nil {
		s.detach(request.Subscription)
	}
	return done, err
}

func (s *server) detach(subscription string) {
	for _, queues := range s.topics {
		delete(queues, subscription)
	}
}

// refuse names what a subscription asks for that is wrong or not done here. Ignoring it would look like a pipeline's fault.
func refuse(sub *pb.Subscription) error {
	var what string
	switch {
	case sub.Filter != "":
		what = "filters"
	case sub.EnableExactlyOnceDelivery:
		what = "exactly-once delivery"
	case sub.PushConfig.GetPushEndpoint() != "" || sub.BigqueryConfig.GetTable() != "" || sub.CloudStorageConfig.GetBucket() != "":
		what = "push subscriptions and exports"
	case len(sub.MessageTransforms) > 0:
		what = "message transforms"
	case sub.AckDeadlineSeconds != 0 && (sub.AckDeadlineSeconds < shortestLoan || sub.AckDeadlineSeconds > longestLoan):
		// pstest would answer UNKNOWN, which clients retry for a minute.
		return status.Errorf(codes.InvalidArgument, "ack_deadline_seconds is %d; it must be from %d to %d",
			sub.AckDeadlineSeconds, shortestLoan, longestLoan)
	default:
		return nil
	}
	return status.Errorf(codes.Unimplemented, "pstest-server does not do %s; use Google's emulator or the service", what)
}

// -------------------------------------------------------------------------------------------------------- messages

func (s *server) Publish(_ context.Context, request *pb.PublishRequest) (*pb.PublishResponse, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	queues, known := s.topics[request.Topic]
	if !known {
		return nil, status.Errorf(codes.NotFound, "Topic not found: %q", request.Topic)
	}
	if len(request.Messages) == 0 || len(request.Messages) > mostMessages {
		return nil, status.Errorf(codes.InvalidArgument, "a publish has from 1 to %d messages", mostMessages)
	}
	for _, message := range request.Messages {
		if len(message.Data) == 0 && len(message.Attributes) == 0 {
			return nil, status.Error(codes.InvalidArgument, "some messages are empty")
		}
	}
	answer := &pb.PublishResponse{MessageIds: make([]string, len(request.Messages))}
	for i, message := range request.Messages {
		message.MessageId = fmt.Sprint(s.nextID.Add(1))
		message.PublishTime = timestamppb.Now()
		answer.MessageIds[i] = message.MessageId
	}
	for _, q := range queues {
		q.publish(request.Messages)
	}
	return answer, nil
}

func (s *server) Pull(ctx context.Context, request *pb.PullRequest) (*pb.PullResponse, error) {
	q, err := s.queue(request.Subscription)
	if err != nil {
		return nil, err
	}
	if request.MaxMessages <= 0 {
		return nil, status.Error(codes.InvalidArgument, "max_messages must be greater than 0")
	}
	most := min(int(request.MaxMessages), mostMessages)
	until := time.NewTimer(longestPull)
	defer until.Stop()
	for {
		taken, news, dead := q.take(most, mostBytes, nil, 0)
		s.bury(q, dead)
		if len(taken) > 0 || request.ReturnImmediately { //nolint:staticcheck // deprecated, and used by everybody
			return &pb.PullResponse{ReceivedMessages: taken}, nil
		}
		select {
		case <-news.changed:
		case <-news.due():
		case <-until.C:
			return &pb.PullResponse{}, nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		if q.isClosed() {
			return nil, notFound(request.Subscription)
		}
	}
}

func (s *server) Acknowledge(_ context.Context, request *pb.AcknowledgeRequest) (*emptypb.Empty, error) {
	q, err := s.queue(request.Subscription)
	if err != nil {
		return nil, err
	}
	q.acknowledge(request.AckIds)
	return &emptypb.Empty{}, nil
}

func (s *server) ModifyAckDeadline(_ context.Context, request *pb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	q, err := s.queue(request.Subscription)
	if err != nil {
		return nil, err
	}
	if request.AckDeadlineSeconds < 0 || request.AckDeadlineSeconds > longestLoan {
		return nil, status.Errorf(codes.InvalidArgument, "bad ack_deadline_seconds: %d", request.AckDeadlineSeconds)
	}
	q.modify(request.AckIds, time.Duration(request.AckDeadlineSeconds)*time.Second)
	return &emptypb.Empty{}, nil
}

func (s *server) Seek(_ context.Context, request *pb.SeekRequest) (*pb.SeekResponse, error) {
	q, err := s.queue(request.Subscription)
	if err != nil {
		return nil, err
	}
	target, byTime := request.Target.(*pb.SeekRequest_Time)
	if !byTime {
		return nil, status.Error(codes.Unimplemented, "pstest-server can only seek to a time")
	}
	return &pb.SeekResponse{}, q.seek(target.Time.AsTime())
}

func (s *server) StreamingPull(stream pb.Subscriber_StreamingPullServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	q, err := s.queue(first.Subscription)
	if err != nil {
		return err
	}
	h := &holder{messages: int(first.MaxOutstandingMessages), bytes: int(first.MaxOutstandingBytes)}
	deadline := time.Duration(first.StreamAckDeadlineSeconds) * time.Second
	obey := func(request *pb.StreamingPullRequest) {
		q.acknowledge(request.AckIds)
		for i, id := range request.ModifyDeadlineAckIds {
			if i < len(request.ModifyDeadlineSeconds) {
				q.modify([]string{id}, time.Duration(request.ModifyDeadlineSeconds[i])*time.Second)
			}
		}
	}
	obey(first)

	// Requests are read beside the sending of answers, and may change how long the next messages are lent.
	var lend atomic.Int64
	lend.Store(int64(deadline))
	ended, ping := make(chan error, 1), make(chan struct{}, 1)
	go func() {
		for {
			request, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			obey(request)
			if request.StreamAckDeadlineSeconds > 0 {
				lend.Store(int64(time.Duration(request.StreamAckDeadlineSeconds) * time.Second))
			}
			if len(request.AckIds) == 0 && len(request.ModifyDeadlineAckIds) == 0 && first.ProtocolVersion >= 1 {
				select {
				case ping <- struct{}{}:
				default:
				}
			}
		}
	}()
	for {
		taken, news, dead := q.take(100, mostBytes, h, time.Duration(lend.Load()))
		s.bury(q, dead)
		if len(taken) > 0 {
			properties := &pb.StreamingPullResponse_SubscriptionProperties{MessageOrderingEnabled: q.ordered()}
			if err := stream.Send(&pb.StreamingPullResponse{ReceivedMessages: taken, SubscriptionProperties: properties}); err != nil {
				return err
			}
			continue
		}
		select {
		case <-news.changed:
		case <-news.due():
		case <-ping:
			if err := stream.Send(&pb.StreamingPullResponse{}); err != nil {
				return err
			}
		case err := <-ended:
			if err == io.EOF {
				return nil
			}
			return err
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
		if q.isClosed() {
			return notFound(first.Subscription)
		}
	}
}

// bury publishes what was delivered too often to the dead-letter topic.
func (s *server) bury(q *queue, dead []*pb.PubsubMessage) {
	if len(dead) == 0 {
		return
	}
	topic := q.deadLetterTopic()
	if _, err := s.Publish(context.Background(), &pb.PublishRequest{Topic: topic, Messages: dead}); err != nil {
		fmt.Printf("pstest-server: %d messages could not be published to %s: %v\n", len(dead), topic, err)
	}
}

func (s *server) queue(subscription string) (*queue, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if q := s.queues[subscription]; q != nil {
		return q, nil
	}
	return nil, notFound(subscription)
}

func notFound(subscription string) error {
	return status.Errorf(codes.NotFound, "Subscription does not exist: %q", subscription)
}
