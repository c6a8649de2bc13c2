package main

import (
	"container/heap"
	"fmt"
	"maps"
	"sort"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// How long acknowledged messages are kept for a Seek where the subscription retains them. The real service keeps them
// for days; here they are in memory (about 700 bytes each), and a Seek beyond this is refused.
const retention = 10 * time.Minute

type state int

const (
	waiting  state = iota // an earlier message of its ordering key is not acknowledged yet
	ready                 // to be delivered
	lent                  // delivered, and its ack deadline has not come
	finished              // acknowledged, or moved to the dead-letter topic
)

// entry is one message in one queue.
type entry struct {
	message    *pb.PubsubMessage
	state      state
	deliveries int
	ackID      string // of the latest delivery; "" before the first and after a nack: older ids count for nothing
	deadline   time.Time
	place      int // in the heap of lent entries
	holder     *holder
	finished   time.Time
}

func (e *entry) published() time.Time { return e.message.PublishTime.AsTime() }

// holder is what a stream of StreamingPull holds, against its limits (0 or less: none).
type holder struct {
	messages, bytes         int
	heldMessages, heldBytes int
}

func (h *holder) full() bool {
	return h.messages > 0 && h.heldMessages >= h.messages || h.bytes > 0 && h.heldBytes >= h.bytes
}

// queue holds the messages of one subscription. Every operation costs O(log lent) a message, whatever the backlog.
type queue struct {
	mu       sync.Mutex
	name     string
	deadline time.Duration
	retain   bool
	ordering bool
	dead     *pb.DeadLetterPolicy

	fresh     []*entry            // ready, never delivered, in the order of publication (may hold finished ones)
	again     []*entry            // ready again: they go first
	lent      byDeadline          // delivered, the next deadline on top
	unacked   map[string]*entry   // by message id: all but the finished ones
	successor map[string][]*entry // by ordering key: waiting ones, in order; the key is present while one is in front
	acked     []*entry            // retained, in the order of acknowledgement
	forgotten time.Time           // the publish time up to which acknowledged messages are gone
	changed   chan struct{}       // closed and replaced when there may be something to deliver
	closed    bool
}

func newQueue(sub *pb.Subscription) *queue {
	q := &queue{
		name:      sub.Name,
		unacked:   map[string]*entry{},
		successor: map[string][]*entry{},
		changed:   make(chan struct{}),
	}
	q.configure(sub)
	return q
}

func (q *queue) configure(sub *pb.Subscription) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.deadline = time.Duration(sub.AckDeadlineSeconds) * time.Second
	q.retain = sub.RetainAckedMessages
	q.ordering = sub.EnableMessageOrdering
	q.dead = proto.CloneOf(sub.DeadLetterPolicy)
}

func (q *queue) ordered() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ordering
}

func (q *queue) deadLetterTopic() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dead.GetDeadLetterTopic()
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.tell()
}

// tell wakes everybody who waits for messages.
func (q *queue) tell() {
	close(q.changed)
	q.changed = make(chan struct{})
}

func (q *queue) publish(messages []*pb.PubsubMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, message := range messages {
		q.add(&entry{message: message})
	}
	q.tell()
}

// add puts a message that is not acknowledged behind all others.
func (q *queue) add(e *entry) {
	q.unacked[e.message.MessageId] = e
	if key := e.message.OrderingKey; q.ordering && key != "" {
		followers, busy := q.successor[key]
		if busy {
			e.state = waiting
			q.successor[key] = append(followers, e)
			return
		}
		q.successor[key] = nil
	}
	e.state = ready
	q.fresh = append(q.fresh, e)
}

// news says how to wait for messages: until something changed, or until a deadline comes.
type news struct {
	changed chan struct{}
	next    time.Time
}

// due fires at the next ack deadline; never, if nothing is lent.
func (n news) due() <-chan time.Time {
	if n.next.IsZero() {
		return nil
	}
	return time.After(time.Until(n.next) + time.Millisecond)
}

// take lends messages: at most so many, of about so many bytes, for `lend` (0: the subscription's ack deadline), within
// the limits of the holder, if there is one. The third result is what has to go to the dead-letter topic instead.
func (q *queue) take(most, bytes int, h *holder, lend time.Duration) ([]*pb.ReceivedMessage, news, []*pb.PubsubMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.expire(now)
	if lend == 0 {
		lend = q.deadline
	}
	var taken []*pb.ReceivedMessage
	var dead []*pb.PubsubMessage
	for len(taken) < most && bytes > 0 && (h == nil || !h.full()) {
		e := q.next()
		if e == nil {
			break
		}
		if q.dead != nil && e.deliveries >= int(q.dead.MaxDeliveryAttempts) {
			dead = append(dead, q.deadLetter(e))
			q.finish(e, now)
			continue
		}
		e.deliveries++
		e.state = lent
		e.ackID = fmt.Sprintf("%s:%s:%d", q.name, e.message.MessageId, e.deliveries)
		e.deadline = now.Add(lend)
		if e.holder = h; h != nil {
			h.heldMessages++
			h.heldBytes += len(e.message.Data)
		}
		heap.Push(&q.lent, e)
		received := &pb.ReceivedMessage{AckId: e.ackID, Message: e.message}
		if q.dead != nil {
			received.DeliveryAttempt = int32(e.deliveries)
		}
		taken = append(taken, received)
		bytes -= len(e.message.Data) + 200
	}
	wait := news{changed: q.changed}
	if len(q.lent) > 0 {
		wait.next = q.lent[0].deadline
	}
	return taken, wait, dead
}

// next removes the first message that is ready from its list, or returns nil.
func (q *queue) next() *entry {
	for _, list := range []*[]*entry{&q.again, &q.fresh} {
		for len(*list) > 0 {
			e := (*list)[0]
			(*list)[0] = nil
			*list = (*list)[1:]
			if e.state == ready {
				return e
			}
		}
	}
	return nil
}

// expire makes ready again what nobody acknowledged in time. The ack id of that delivery still counts until the next.
func (q *queue) expire(now time.Time) {
	for len(q.lent) > 0 && q.lent[0].deadline.Before(now) {
		q.giveBack(q.lent[0])
	}
}

// giveBack makes a lent message ready again.
func (q *queue) giveBack(e *entry) {
	q.release(e)
	e.state = ready
	q.again = append(q.again, e)
}

// release takes a lent message off the heap and off its holder.
func (q *queue) release(e *entry) {
	heap.Remove(&q.lent, e.place)
	if h := e.holder; h != nil {
		h.heldMessages--
		h.heldBytes -= len(e.message.Data)
		e.holder = nil
	}
}

func (q *queue) acknowledge(ackIDs []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	released := false
	for _, id := range ackIDs {
		if e := q.delivered(id); e != nil {
			released = released || e.holder != nil || e.message.OrderingKey != ""
			q.finish(e, now)
		}
	}
	if released {
		q.tell() // a stream has room again, or the next message of an ordering key is free
	}
}

// modify sets the deadline of lent messages anew, counted from now; 0 gives them back at once (a nack).
func (q *queue) modify(ackIDs []string, deadline time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for _, id := range ackIDs {
		e := q.delivered(id)
		if e == nil || e.state != lent {
			continue
		}
		if deadline == 0 {
			e.ackID = ""
			q.giveBack(e)
		} else {
			e.deadline = now.Add(deadline)
			heap.Fix(&q.lent, e.place)
		}
	}
	q.tell()
}

// delivered finds the message whose latest delivery had this ack id; nil for any other.
func (q *queue) delivered(ackID string) *entry {
	rest, found := strings.CutPrefix(ackID, q.name+":")
	if !found {
		return nil
	}
	messageID, _, _ := strings.Cut(rest, ":")
	if e := q.unacked[messageID]; e != nil && e.ackID == ackID {
		return e
	}
	return nil
}

// finish is what an acknowledgement does.
func (q *queue) finish(e *entry, now time.Time) {
	if e.state == lent {
		q.release(e)
	}
	e.state = finished
	e.finished = now
	delete(q.unacked, e.message.MessageId)
	if key := e.message.OrderingKey; q.ordering && key != "" {
		if followers := q.successor[key]; len(followers) > 0 {
			q.successor[key] = followers[1:]
			followers[0].state = ready
			q.fresh = append(q.fresh, followers[0])
		} else {
			delete(q.successor, key)
		}
	}
	if !q.retain {
		q.forget(e)
		return
	}
	q.acked = append(q.acked, e)
	for len(q.acked) > 0 && now.Sub(q.acked[0].finished) > retention {
		q.forget(q.acked[0])
		q.acked[0] = nil
		q.acked = q.acked[1:]
	}
}

func (q *queue) forget(e *entry) {
	if q.retain && e.published().After(q.forgotten) {
		q.forgotten = e.published()
	}
}

// seek acknowledges everything that was published before the target, and makes everything since then due again: what is
// not acknowledged and, where the subscription retains it, what is. As the emulator does it.
func (q *queue) seek(target time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if !target.After(q.forgotten) {
		return status.Errorf(codes.FailedPrecondition,
			"pstest-server keeps acknowledged messages for %s: those published until %s are gone", retention, q.forgotten)
	}
	var due, kept []*entry
	for _, e := range q.acked {
		if e.published().Before(target) {
			kept = append(kept, e)
		} else {
			due = append(due, e)
		}
	}
	q.acked = kept
	before := []*entry{}
	for _, e := range q.unacked {
		if e.state == lent {
			q.release(e)
		}
		if e.published().Before(target) {
			before = append(before, e)
		} else {
			due = append(due, e)
		}
	}
	q.fresh, q.again, q.lent = nil, nil, nil
	q.unacked, q.successor = map[string]*entry{}, map[string][]*entry{}
	for _, e := range before {
		e.state = ready
		q.finish(e, now)
	}
	sort.Slice(due, func(i, j int) bool { return due[i].published().Before(due[j].published()) })
	for _, e := range due {
		e.ackID = ""
		q.add(e)
	}
	q.tell()
	return nil
}

// deadLetter is a message as it goes to the dead-letter topic, with the attributes that the real service adds.
func (q *queue) deadLetter(e *entry) *pb.PubsubMessage {
	attributes := map[string]string{}
	maps.Copy(attributes, e.message.Attributes)
	parts := strings.Split(q.name, "/") // projects/<project>/subscriptions/<name>
	if len(parts) == 4 {
		attributes["CloudPubSubDeadLetterSourceSubscriptionProject"] = parts[1]
		attributes["CloudPubSubDeadLetterSourceSubscription"] = parts[3]
	}
	attributes["CloudPubSubDeadLetterSourceDeliveryCount"] = fmt.Sprint(e.deliveries)
	attributes["CloudPubSubDeadLetterSourceTopicPublishTime"] = e.published().Format("2006-01-02T15:04:05.000Z07:00")
	return &pb.PubsubMessage{Data: e.message.Data, Attributes: attributes, OrderingKey: e.message.OrderingKey}
}

// byDeadline is a heap of lent entries.
type byDeadline []*entry

func (h byDeadline) Len() int           { return len(h) }
func (h byDeadline) Less(i, j int) bool { return h[i].deadline.Before(h[j].deadline) }
func (h byDeadline) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *byDeadline) Push(x any) {
	e := x.(*entry)
	e.place = len(*h)
	*h = append(*h, e)
}

func (h *byDeadline) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
