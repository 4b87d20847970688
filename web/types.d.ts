/** The wire's messages as the page uses them (see docs/protocol.md), and what TypeScript's DOM library
 *  does not declare: the scope of an audio worklet. */

export type RoleState = "absent" | "fetching" | "loading" | "ready" | "failed";

export interface RoleProgress {
  role: string;
  model: string;
  state: RoleState;
  /** 0–1 while fetching */
  progress: number;
  message: string;
}

export interface SessionSettings {
  language?: string | null;
  vocabulary?: string[];
  instructions?: string | null;
  voice?: string | null;
  speed?: number;
  audio_in?: { codec: string; sample_rate: number };
  audio_out?: { codec: string; sample_rate: number; binary: boolean };
  turn_detection?: { mode?: "auto" | "manual"; end_ms?: number; eagerness?: "low" | "medium" | "high"; echo?: boolean };
}

export interface SessionCreated {
  session_id: string;
  ws_url: string;
  token: string;
  /** 0: admitted */
  queue_position: number;
}

export interface Voice {
  name: string;
  language: string;
  gender?: string;
}

export interface SpeakerInfo {
  voices: Voice[];
  default: string | null;
}

export interface Health {
  status: string;
  version: string;
  roles: RoleProgress[];
}

interface Event {
  seq: number;
}
export interface SessionReady extends Event {
  type: "session_ready";
  session_id: string;
  resumed: boolean;
  settings: SessionSettings;
  heartbeat_s: number;
  received_ms: number;
  received_messages: number;
}
export interface Queued extends Event {
  type: "queued";
  /** 1 is the next */
  position: number;
  retry_after_s: number;
}
export interface Loading extends Event {
  type: "loading";
  roles: RoleProgress[];
}
export interface SpeechStarted extends Event {
  type: "speech_started";
  turn_id: string;
  at_ms: number;
}
export interface SpeechStopped extends Event {
  type: "speech_stopped";
  turn_id: string;
  at_ms: number;
}
export interface TurnDropped extends Event {
  type: "turn_dropped";
  turn_id: string;
  reason: string;
}
export interface TranscriptionPartial extends Event {
  type: "transcription_partial";
  turn_id: string;
  text: string;
  committed: string;
  confidence: number;
}
export interface TranscriptionFinal extends Event {
  type: "transcription_final";
  turn_id: string;
  text: string;
  confidence: number;
  low_confidence: boolean;
  language: string;
  speaker: string;
  person?: { id: string; name: string; is_user: boolean } | null;
}
export interface LlmToken extends Event {
  type: "llm_token";
  turn_id: string;
  token: string;
}
export interface AudioChunk extends Event {
  type: "audio_chunk";
  turn_id: string;
  /** base64, or null when the next `frames` frames are binary and hold the sound */
  data: string | null;
  frames: number;
  codec: string;
  sample_rate: number;
  duration_ms: number;
  offset_ms: number;
  text: string | null;
}
export interface ToolCall extends Event {
  type: "tool_call";
  turn_id: string;
  call_id: string;
  name: string;
  /** JSON text, as the language model wrote it */
  arguments: string;
}
export interface ToolResult extends Event {
  type: "tool_result";
  turn_id: string;
  call_id: string;
  ok: boolean;
  text: string;
  ms: number;
}
export interface ReplyPaused extends Event {
  type: "reply_paused";
  turn_id: string;
  at_ms: number;
}
export interface ReplyResumed extends Event {
  type: "reply_resumed";
  turn_id: string;
}
export interface Interrupted extends Event {
  type: "interrupted";
  turn_id: string;
  reason: "speech" | "client" | "text" | "closed";
  heard_text: string;
}
export interface TurnComplete extends Event {
  type: "turn_complete";
  turn_id: string;
  number: number;
  transcript: string;
  reply: string;
  audio_ms: number;
  interrupted: boolean;
  /** stage → milliseconds since the end of speech */
  latency: Record<string, number>;
}
export interface Notice extends Event {
  type: "notice";
  code: string;
  message: string;
}
export interface ErrorOut extends Event {
  type: "error";
  code: string;
  message: string;
  trace_id: string;
  field?: string | null;
  retryable?: boolean;
  turn_id?: string | null;
}
export interface Ping extends Event {
  type: "ping";
  received_ms: number;
  received_messages: number;
}
export interface Pong extends Event {
  type: "pong";
}

export type ServerMessage =
  | SessionReady
  | Loading
  | Queued
  | SpeechStarted
  | SpeechStopped
  | TurnDropped
  | TranscriptionPartial
  | TranscriptionFinal
  | LlmToken
  | AudioChunk
  | ToolCall
  | ToolResult
  | ReplyPaused
  | ReplyResumed
  | Interrupted
  | TurnComplete
  | Notice
  | ErrorOut
  | Ping
  | Pong;

export type ClientMessage =
  | { type: "text"; text: string }
  | { type: "interrupt" }
  | { type: "playback"; turn_id: string; played_ms: number }
  | { type: "commit" }
  | { type: "configure"; settings: SessionSettings }
  | { type: "pong" }
  | { type: "resume"; last_seq: number };

/** What the person chose in the settings dialog; kept in localStorage. */
export interface Preferences {
  uiLanguage: "auto" | "en" | "zh";
  /** spoken language: ISO 639-1, "auto", or "" for the server's default */
  language: string;
  /** a voice's name, or "" for the server's default */
  voice: string;
  speed: number;
  pushToTalk: boolean;
  /** silence that ends a turn, ms */
  endMs: number;
  instructions: string;
  vocabulary: string[];
  apiKey: string;
}

declare global {
  interface Window {
    /** Opt-in hook for tests: gets the reply's sound as it was rendered, 24 kHz mono, with its turn. */
    __colloquyTap?: (samples: Float32Array, turnId: string) => void;
  }

  // AudioWorkletGlobalScope
  const sampleRate: number;
  class AudioWorkletProcessor {
    readonly port: MessagePort;
    constructor(options?: AudioWorkletNodeOptions);
  }
  function registerProcessor(
    name: string,
    processor: new (options: AudioWorkletNodeOptions) => AudioWorkletProcessor & {
      process(inputs: Float32Array[][], outputs: Float32Array[][]): boolean;
    },
  ): void;
}
