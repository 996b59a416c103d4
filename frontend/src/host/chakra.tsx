import type { ComponentType, ReactNode } from "react";

/**
 * The components of Airflow's UI. Airflow 3.2 and newer share their Chakra UI with plugins; 3.1 shares React alone, so
 * plain elements with the same design tokens (styles.css) take their place there.
 */

export interface ButtonProps {
  children: ReactNode;
  onClick?: (() => void) | undefined;
  disabled?: boolean;
  title?: string | undefined;
  variant?: "solid" | "outline" | "ghost";
  colorPalette?: "brand" | "red" | "gray";
  type?: "button" | "submit";
  autoFocus?: boolean;
  "aria-label"?: string;
  "aria-pressed"?: boolean;
}
export interface BadgeProps {
  children: ReactNode;
  colorPalette: string;
  title?: string | undefined;
}

type Sized<Props> = ComponentType<Props & { size?: string }>;

interface Chakra {
  Button: Sized<ButtonProps>;
  Badge: ComponentType<BadgeProps & { variant?: string }>;
  Heading: Sized<{ children: ReactNode; as: string; id?: string | undefined }>;
  Spinner: Sized<{ "aria-hidden"?: boolean }>;
  Alert: {
    Root: ComponentType<{ status: Status; children: ReactNode }>;
    Indicator: ComponentType;
    Content: ComponentType<{ children: ReactNode }>;
    Title: ComponentType<{ children: ReactNode }>;
    Description: ComponentType<{ children: ReactNode }>;
  };
}

export type Status = "error" | "warning" | "info" | "success";

const shared = (globalThis as unknown as { ChakraUI?: Chakra }).ChakraUI;

export function Button({ variant = "outline", colorPalette = "gray", type = "button", ...props }: ButtonProps) {
  if (shared) return <shared.Button size="xs" variant={variant} colorPalette={colorPalette} type={type} {...props} />;
  return <button className={`mf-button mf-button-${variant} mf-${colorPalette}`} type={type} {...props} />;
}

export function Badge({ colorPalette, ...props }: BadgeProps) {
  if (shared) return <shared.Badge variant="subtle" colorPalette={colorPalette} {...props} />;
  return <span className={`mf-badge mf-${colorPalette}`} {...props} />;
}

export function Heading({ level, id, children }: { level: 1 | 2 | 3; id?: string; children: ReactNode }) {
  const tag = `h${level}` as const;
  const size = { 1: "xl", 2: "md", 3: "sm" }[level];
  if (shared) return <shared.Heading as={tag} size={size} id={id}>{children}</shared.Heading>;
  const Tag = tag;
  return <Tag id={id} className="mf-heading">{children}</Tag>;
}

export function Spinner() {
  if (shared) return <shared.Spinner size="sm" aria-hidden />;
  return <span className="mf-spinner" aria-hidden />;
}

interface AlertProps {
  status: Status;
  title: ReactNode;
  detail?: ReactNode;
  /** Not announced: it can hold an age, which changes all the time. */
  children?: ReactNode;
}

/** A message whose title and detail are announced when it appears. */
export function Alert({ status, title, detail, children }: AlertProps) {
  if (!shared) {
    return (
      <div className={`mf-alert mf-alert-${status}`}>
        <div role="alert">
          <strong>{title}</strong>
          {detail && <div>{detail}</div>}
        </div>
        {children && <div>{children}</div>}
      </div>
    );
  }
  const { Root, Indicator, Content, Title, Description } = shared.Alert;
  return (
    <Root status={status}>
      <Indicator />
      <Content>
        <div role="alert">
          <Title>{title}</Title>
          {detail && <Description>{detail}</Description>}
        </div>
        {children && <Description>{children}</Description>}
      </Content>
    </Root>
  );
}
