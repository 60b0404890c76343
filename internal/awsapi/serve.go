package awsapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/fairlead/fairlead/api"
	"github.com/fairlead/fairlead/internal/iam"
)

// callTimeout bounds one operation, below the server's write timeout.
const callTimeout = 30 * time.Second

const (
	codeBadRequest = "BadRequestException"
	codeValidation = "ValidationException"
	codeInternal   = "InternalServerErrorException"
	codeFailure    = "InternalFailure"
	codeUnreadable = "SerializationException"
	codeUnknown    = "UnknownOperationException"
	codeTooMany    = "TooManyRequestsException"
	codeThrottling = "ThrottlingException"
	codeTooSlow    = "RequestTimeoutException"
	codeNotNow     = "ServiceUnavailableException"
)

// ServeHTTP verifies, routes, decodes, calls and answers. Whatever goes wrong,
// the answer is an error that AWS's SDKs understand, and only this request's.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := m.cfg.now()
	reply := newReply(w, r, started)
	log := m.cfg.log()
	route, body, stream, err := m.answer(reply.protocol, r, reply.id)
	if err == nil && stream != nil {
		var begun bool
		if begun, err = reply.stream(r, stream); begun && err != nil {
			log.Error("an answer broke off", "request", reply.id, "operation", route.action, "cause", err)
			panic(http.ErrAbortHandler) // who reads it must see that it is not whole
		} else if begun {
			return
		}
	}
	status, code := http.StatusOK, ""
	if err != nil {
		code, status, body = reply.fail(m.describe(log.With("request", reply.id), route, err))
		if denied, ok := errors.AsType[*notAllowed](err); ok {
			w.Header().Set("Allow", strings.Join(denied.allowed, ", "))
		}
	}
	unwritten := reply.write(status, body)
	if !log.Enabled(r.Context(), slog.LevelDebug) { // as almost always: it would cost as much as a signature
		return
	}
	about := []any{"request", reply.id, "method", r.Method, "status", status, "took", m.cfg.now().Sub(started)}
	if code != "" {
		about = append(about, "error", code)
	}
	if route != nil {
		about = append(about, "service", route.service, "operation", route.action)
	}
	if unwritten != nil {
		about = append(about, "write", unwritten)
	}
	log.Debug("answered", about...)
}

// Refuse answers a request that is not to reach a Mux, as a Mux would.
func Refuse(w http.ResponseWriter, r *http.Request, e *api.Exception) {
	reply := newReply(w, r, time.Now())
	_, status, body := reply.fail(e)
	reply.write(status, body) //nolint:errcheck // nobody is there to be told
}

// reply is an answer on its way, in the protocol of its request.
type reply struct {
	writer   http.ResponseWriter
	protocol protocol
	id       string // of the request
}

func newReply(w http.ResponseWriter, r *http.Request, now time.Time) reply {
	reply := reply{writer: w, protocol: protocolOf(r), id: newRequestID()}
	h := w.Header()
	h.Set("X-Amzn-Requestid", reply.id)
	h.Set("Date", now.UTC().Format(http.TimeFormat)) // SDKs correct their clocks by it
	reply.protocol.head(h)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	return reply
}

func (r reply) fail(e *api.Exception) (code string, status int, body []byte) {
	code, status, body = r.protocol.error(e, r.id)
	r.writer.Header().Set("X-Amzn-Errortype", code)
	return code, status, body
}

func (r reply) write(status int, body []byte) error {
	r.writer.Header().Set("Content-Length", formatInt(int64(len(body))))
	// Who does not take the answer is cut off.
	http.NewResponseController(r.writer).SetWriteDeadline(time.Now().Add(patience)) //nolint:errcheck // only a test's writer has none
	r.writer.WriteHeader(status)
	_, err := r.writer.Write(body)
	return err
}

// stream answers with what a Stream writes. Until that has written something,
// another answer can be given.
func (r reply) stream(request *http.Request, write Stream) (begun bool, err error) {
	w := &streamWriter{reply: r}
	defer func() {
		if p := recover(); p != nil {
			begun, err = w.begun, &panicked{value: p, stack: debug.Stack()}
		}
	}()
	err = write(request.Context(), w)
	return w.begun, err
}

// streamWriter cuts off who does not take the next piece of an answer in time.
type streamWriter struct {
	reply reply
	begun bool
}

func (w *streamWriter) Write(p []byte) (int, error) {
	if !w.begun {
		w.begun = true
		w.reply.writer.Header().Set("Content-Type", "application/octet-stream")
	}
	http.NewResponseController(w.reply.writer).SetWriteDeadline(time.Now().Add(patience)) //nolint:errcheck // only a test's writer has none
	return w.reply.writer.Write(p)
}

// answer does the work of one request. The route is nil if none was found.
func (m *Mux) answer(p protocol, r *http.Request, id string) (found *route, body []byte, stream Stream, err error) {
	defer func() {
		if p := recover(); p != nil {
			body, stream, err = nil, nil, &panicked{value: p, stack: debug.Stack()}
		}
	}()
	v, err := m.cfg.verify(r, m.bodies)
	if err != nil {
		return nil, nil, nil, err
	}
	defer v.release()
	found, in, err := m.route(p, r, v)
	if err != nil {
		return nil, nil, nil, err
	}
	if !found.signedFor(v.service) {
		return found, nil, nil, wrongService(found.service)
	}
	if err := iam.AuthorizeAPI(v.principal, found.service, found.action); err != nil {
		return found, nil, nil, err
	}
	if err := m.throttle.take(v.principal.Account, found.action, m.cfg.now()); err != nil {
		return found, nil, nil, err
	}
	if limit := p.maxBody(); int64(len(v.body)) > limit {
		return found, nil, nil, entityTooLarge(limit)
	}
	if err := checkContent(p, r.Header, v.body); err != nil {
		return found, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	ctx = context.WithValue(ctx, callKey{}, call{principal: v.principal, requestID: id})
	out, err := found.call(ctx, in)
	if err != nil {
		return found, nil, nil, err
	}
	if stream, ok := out.(Stream); ok {
		return found, nil, stream, nil
	}
	if body, err = p.encode(out); err != nil {
		return found, nil, nil, fmt.Errorf("encode answer: %w", err)
	}
	return found, body, nil, nil
}

// panicked is a bug that one request hit.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// describe turns an error into what the caller is told. What is not the caller's
// fault is logged here, and the caller gets no more than the request's id.
func (m *Mux) describe(log *slog.Logger, r *route, err error) *api.Exception {
	e := exceptionOf(r, err)
	if e == nil {
		e = api.Exceptionf(r.code(codeInternal, codeFailure), http.StatusInternalServerError, "internal error; the server's log has its cause under the id of this request")
	}
	if p, ok := errors.AsType[*panicked](err); ok {
		log = log.With("stack", string(p.stack))
	}
	if e.Status >= http.StatusInternalServerError {
		log.Error("request failed", "cause", err)
	}
	return e
}

// exceptionOf is the one place that maps errors to what goes over the wire; nil
// means that the error is nobody's business but the log's.
func exceptionOf(r *route, err error) *api.Exception {
	if e, ok := errors.AsType[*api.Exception](err); ok {
		return e
	}
	if faults, ok := errors.AsType[Faults](err); ok {
		return api.Exceptionf(r.code(codeBadRequest, codeValidation), http.StatusBadRequest, "%s", faults.Error())
	}
	if e, ok := errors.AsType[*notAllowed](err); ok {
		return api.Exceptionf("MethodNotAllowedException", http.StatusMethodNotAllowed, "%s", e.Error())
	}
	if refusal, ok := errors.AsType[*iam.Refusal](err); ok {
		switch {
		case errors.Is(refusal, iam.ErrInvalidResource):
			return api.Exceptionf(r.code(codeBadRequest, codeValidation), http.StatusBadRequest, "%s", refusal.Message)
		case errors.Is(refusal, iam.ErrDenied):
			return refuse(codeAccessDenied, "%s", refusal.Message)
		}
		return refuse(codeUnknownClient, "%s", refusal.Message)
	}
	if errors.Is(err, errKeysUnavailable) {
		return api.Exceptionf(codeNotNow, http.StatusServiceUnavailable, "access keys cannot be looked up now; try again")
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return api.Exceptionf(codeNotNow, http.StatusServiceUnavailable, "the request took too long; try it again")
	}
	return nil
}

// code picks the name under which an operation's model knows an error: the
// first choice if the model lists it or lists nothing, else the second.
func (r *route) code(first, second string) string {
	if r == nil || len(r.errors) == 0 || slices.Contains(r.errors, first) {
		return first
	}
	return second
}

// newRequestID makes a random UUID.
func newRequestID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
